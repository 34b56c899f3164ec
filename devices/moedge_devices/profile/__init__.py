"""Profiles: the facts about kinds of boards, each with its source."""

from moedge_devices.profile.load import find_profile, shipped_profiles
from moedge_devices.profile.model import Cores, Figure, Profile

__all__ = ["Cores", "Figure", "Profile", "find_profile", "shipped_profiles"]
