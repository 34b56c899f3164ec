"""What the board's files say about its temperature, its power and its flash. Reads only; nothing here decides."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")

PLAUSIBLE_C = (-40.0, 150.0)
"""A zone that says anything else is broken or switched off."""

_PASSIVE = "passive"
"""Type of the trip point at which the kernel slows the processor down
(kernel.org, Documentation/driver-api/thermal/sysfs-api.rst, trip_point_[0-*]_type)."""

RASPBERRY_PI_LIMIT_C = 80.0
"""Its zones have no passive trip point: the firmware slows down by itself
(raspberrypi.com/documentation/computers/raspberry-pi.html, frequency management and thermal control)."""

_UNDER_VOLTAGE_BIT = 0
_THROTTLED_BITS = (1, 2, 3)
"""Of get_throttled: under-voltage; clock capped, throttled, soft temperature limit, all of them now
(raspberrypi.com/documentation/computers/os.html, get_throttled)."""


@dataclass(frozen=True)
class Zone:
    """A thermal zone.

    Attributes:
        name: Its type, such as cpu-thermal; with its number where two have the same.
        temperature_c: Now.
        limit_c: At which the kernel, or the firmware, slows the processor down; None if that is not known.
    """

    name: str
    temperature_c: float
    limit_c: float | None = None


@dataclass(frozen=True)
class FlashLife:
    """A part of an eMMC.

    Attributes:
        device: Such as mmcblk0.
        memory: Which of its kinds of memory, a or b.
        used: Of its life, 0 to 1 and in tenths, at most; 1.1 is beyond what it was made for.
    """

    device: str
    memory: str
    used: float


@dataclass(frozen=True)
class Reading:
    """The board at one moment.

    Attributes:
        zones: All that say a plausible temperature.
        under_voltage: Whether the power supply is too weak now; None where nothing says so.
        throttled: Whether the firmware holds the clock back now; None where nothing says so.
        power_mode: Of a Jetson, by its name; None elsewhere.
        flash: What eMMCs say of their wear.
    """

    zones: tuple[Zone, ...] = ()
    under_voltage: bool | None = None
    throttled: bool | None = None
    power_mode: str | None = None
    flash: tuple[FlashLife, ...] = ()

    @property
    def hottest_c(self) -> float | None:
        """The highest temperature; None if there is none."""
        return max((zone.temperature_c for zone in self.zones), default=None)


def read_board(root: Path = ROOT) -> Reading:
    """Read the board's sensors under `root`. What is not there or cannot be read is left out; never raises."""
    bits = _firmware_bits(root)
    alarm = _voltage_alarm(root)
    under_voltage = alarm if bits is None else bool(bits >> _UNDER_VOLTAGE_BIT & 1) or bool(alarm)
    throttled = None if bits is None else any(bits >> bit & 1 for bit in _THROTTLED_BITS)
    return Reading(tuple(_zones(root)), under_voltage, throttled, _power_mode(root), tuple(_flash(root)))


def _zones(root: Path) -> Iterator[Zone]:
    is_pi = (_text(root / "proc/device-tree/model") or "").startswith("Raspberry Pi")
    default_c = RASPBERRY_PI_LIMIT_C if is_pi else None
    seen: set[str] = set()
    for folder in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        temperature_c = _degrees(folder / "temp")
        if temperature_c is None:
            continue
        name = _text(folder / "type") or folder.name
        if name in seen:
            name = f"{name}-{folder.name.removeprefix('thermal_zone')}"
        seen.add(name)
        trips = [
            trip_c
            for kind in folder.glob("trip_point_*_type")
            if _text(kind) == _PASSIVE and (trip_c := _degrees(kind.with_name(kind.name[:-4] + "temp"))) is not None
        ]
        yield Zone(name, temperature_c, min((trip_c for trip_c in trips if trip_c > 0), default=default_c))


def _voltage_alarm(root: Path) -> bool | None:
    """The Raspberry Pi's under-voltage sensor (drivers/hwmon/raspberrypi-hwmon.c)."""
    for folder in root.glob("sys/class/hwmon/hwmon*"):
        if _text(folder / "name") == "rpi_volt":
            alarm = _text(folder / "in0_lcrit_alarm")
            return None if alarm is None else alarm == "1"
    return None


def _firmware_bits(root: Path) -> int | None:
    """What `vcgencmd get_throttled` says, where the Raspberry Pi's kernel has it as a file; hexadecimal."""
    for pattern in (
        "sys/devices/platform/soc*/*firmware/get_throttled",
        "sys/devices/platform/*firmware/get_throttled",
    ):
        for path in root.glob(pattern):
            text = (_text(path) or "").removeprefix("0x")
            if re.fullmatch(r"[0-9a-fA-F]{1,8}", text):
                return int(text, 16)
    return None


def _power_mode(root: Path) -> str | None:
    """What `nvpmodel -q` says, from its files; by its name, since a number is another mode on another module."""
    status = re.match(r"pmode:(\d{1,4})", _text(root / "var/lib/nvpmodel/status") or "")
    if status is None:
        return None
    modes = re.findall(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", _text(root / "etc/nvpmodel.conf") or "", re.M)
    return next((name for number, name in modes if int(number) == int(status[1])), None)


def _flash(root: Path) -> Iterator[FlashLife]:
    """JEDEC JESD84-B51, DEVICE_LIFE_TIME_EST_TYP_A and B: 1 for 0 to 10 % used … 10 for 90 to 100 %, 11 beyond."""
    for path in sorted(root.glob("sys/block/mmcblk*/device/life_time")):
        words = (_text(path) or "").split()
        for memory, word in zip("ab", words, strict=False):
            if re.fullmatch(r"0x0[1-9a-bA-B]", word):
                yield FlashLife(path.parents[1].name, memory, int(word, 16) / 10)


def _degrees(path: Path) -> float | None:
    """Millidegrees Celsius in a file, as degrees; None if they are none."""
    text = _text(path) or ""
    if not re.fullmatch(r"-?\d{1,7}", text):
        return None
    degrees = int(text) / 1000
    return degrees if PLAUSIBLE_C[0] <= degrees <= PLAUSIBLE_C[1] else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:  # a sensor that is switched off fails to read
        return None
