"""The table of docs/devices.md. `python -m moedge_devices.profile.table` prints it; a test compares the two."""

from __future__ import annotations

from moedge_devices.profile.load import shipped_profiles
from moedge_devices.profile.model import Figure, Profile

MARKS = {"measured": "m", "stated": "s", "assumed": "a"}


def profiles_table() -> str:
    """All profiles, each figure with m, s or a for measured, stated or assumed."""
    rows = [
        "| device | memory, available GiB | reads GB/s | cores, GHz | instruction set | storage, GB/s |",
        "|---|---|---|---|---|---|",
    ]
    rows += [f"| {' | '.join(_cells(profile))} |" for profile in shipped_profiles().values()]
    return "\n".join(rows) + "\n"


def _cells(profile: Profile) -> list[str]:
    cores = " + ".join(f"{each.count.value:g} {each.type} of {_marked(each.ghz)}" for each in profile.cores)
    storage = ", ".join(f"{kind} {_marked(place.read_gb_s)}" for kind, place in profile.storage.items())
    return [
        f"`{profile.name}`",
        f"{_marked(profile.memory.total_gib)}, {_marked(profile.memory.available_gib)}",
        _marked(profile.memory.read_gb_s),
        cores,
        profile.instruction_sets.names[0],
        storage,
    ]


def _marked(figure: Figure) -> str:
    return f"{figure.value:g} ({MARKS[figure.origin]})"


if __name__ == "__main__":
    print(profiles_table(), end="")
