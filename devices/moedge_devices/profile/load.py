"""Finds profiles: those that are shipped by name, others by path, and what `moedge doctor --json` wrote."""

from __future__ import annotations

import difflib
import json
from functools import cache
from pathlib import Path

from moedge_runtime.errors import ConfigError

from moedge_devices.data_files import data_path
from moedge_devices.profile.model import Profile
from moedge_devices.typed_yaml import check_typed, load_typed


@cache
def shipped_profiles() -> dict[str, Profile]:
    """All profiles of devices/profiles by name, sorted by it.

    Raises:
        ConfigError: One of the files is wrong.
    """
    profiles = [load_typed(path, Profile, "Profile") for path in sorted(data_path("profiles").glob("*.yaml"))]
    return {profile.name: profile for profile in profiles}


def find_profile(device: str) -> Profile:
    """The profile `device`: the name of a shipped one, or the path of a profile or of a report of `moedge doctor`.

    Raises:
        ConfigError: There is none of that name, or the file is wrong.
    """
    profiles = shipped_profiles()
    if device in profiles:
        return profiles[device]
    path = Path(device)
    if path.suffix in (".yaml", ".yml", ".json") or path.is_file():
        return _from_file(path)
    close = difflib.get_close_matches(device, profiles, n=1)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    raise ConfigError(
        f"There is no profile '{device}'. {hint}Known are {', '.join(profiles)}; or give the path of a profile, or of "
        f"what `moedge doctor --json` wrote.",
        key="profile.unknown",
    )


def _from_file(path: Path) -> Profile:
    """A profile, or the `profile` of a report of `moedge doctor`."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"Profile '{path}' cannot be read ({error.strerror}). Give a name or an existing file.",
            key="config.unreadable",
        ) from error
    except ValueError:  # YAML, or damaged: load_typed says so with the line
        report = None
    if isinstance(report, dict) and "checks" in report:
        if report.get("profile") is None:
            raise ConfigError(
                f"'{path}' is a report of `moedge doctor` without measurements. Run it again without --no-measure.",
                key="profile.unmeasured",
            )
        return check_typed(report["profile"], Profile, f"The profile in report '{path}'", {}, [])
    return load_typed(path, Profile, "Profile")
