"""fleet.yaml: all boards of one user in one file, and what is done with it. docs/fleet.md describes both."""

from moedge_devices.fleet.load import Device, Fleet, load_fleet

__all__ = ["Device", "Fleet", "load_fleet"]
