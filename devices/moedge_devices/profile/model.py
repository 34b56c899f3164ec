"""The facts about a kind of board, each with where it comes from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

PROFILE_VERSION: Literal[1] = 1

Origin = Literal["measured", "stated", "assumed"]
InstructionSet = Literal["scalar", "avx2", "avxvnni", "avx512vnni", "amx", "neondot", "neoni8mm"]
"""Names as in docs/expert-core.md; a test compares them with the core's."""

SOURCE_PREFIXES = ("https://", "docs/", "moedge doctor ")


def _source(text: str) -> str:
    if not text.startswith(SOURCE_PREFIXES):
        raise ValueError(f"a source begins with one of {', '.join(map(repr, SOURCE_PREFIXES))}")
    return text


def _identifier(name: str) -> str:
    if not name or not all(part.isalnum() for part in name.split("-")):
        raise ValueError("a name has small letters, digits and single hyphens between them")
    return name


Source = Annotated[str, AfterValidator(_source)]
Reason = Annotated[str, Field(min_length=20)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$"), AfterValidator(_identifier)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class _Sourced(_Frozen):
    """Something with exactly one of three origins."""

    measured: Source | None = None
    """Where the measurement is published."""
    stated: Source | None = None
    """Where the maker states it."""
    assumed: Reason | None = None
    """Why it is believed, for want of a measurement and a statement."""
    note: str | None = None
    """What the source says exactly, or how the value follows from it."""

    @model_validator(mode="after")
    def _has_one_origin(self) -> _Sourced:
        given = [name for name in ("measured", "stated", "assumed") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of measured, stated and assumed; got {', '.join(given) or 'none'}")
        return self

    @property
    def origin(self) -> Origin:
        """Which of the three it is."""
        if self.measured is not None:
            return "measured"
        return "stated" if self.stated is not None else "assumed"

    @property
    def source(self) -> str:
        """The address, or the reason."""
        return self.measured or self.stated or self.assumed or ""


class Figure(_Sourced):
    """A number; its unit is in the name of its key."""

    value: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Names(_Sourced):
    """Some names, the best or usual one first."""

    names: Annotated[list[str], Field(min_length=1)]


class InstructionSets(_Sourced):
    """Those that the expert core can use, the fastest first."""

    names: Annotated[list[InstructionSet], Field(min_length=1)]


class Memory(_Frozen):
    """Main memory. GiB are 2^30 bytes, GB/s are 10^9 bytes a second."""

    total_gib: Figure
    """What the board is sold with."""
    available_gib: Figure
    """What an idle system without a desktop leaves: less the carve-outs of firmware and GPU, and the system itself."""
    peak_gb_s: Figure | None = None
    """Of the memory chips; nothing is computed from it."""
    read_gb_s: Figure
    """That all cores together read, as `moedge bench` and `moedge doctor` measure it."""


class Cores(_Frozen):
    """Cores of one kind."""

    type: str
    """For example Cortex-A76."""
    count: Figure
    ghz: Figure
    """The highest clock that all of them hold."""
    share: Figure | None = None
    """Operations in a cycle, relative to what calibration.yaml has for the instruction set; null for 1."""


class Storage(_Frozen):
    """A place for the bundle."""

    read_gb_s: Figure
    """Random reads of 1 MB and more past the page cache, several at a time; records have 2.65 MB at INT4."""
    in_order_gb_s: Figure | None = None
    """Neighbouring records, as a prefill that needs all experts reads them; null for the same as `read_gb_s`."""


class Compute(_Frozen):
    """Operations a second, in 10^9, that `moedge doctor` measured; without them they follow from cores and clock."""

    experts_gops: Figure | None = None
    layers_gops: Figure | None = None
    vision_gops: Figure | None = None


class Profile(_Frozen):
    """One kind of board."""

    version: Literal[1]
    name: Name
    title: str
    family: Literal["jetson", "raspberry-pi", "rockchip", "generic"]
    """Which of the checks of `moedge doctor` concern it."""
    architecture: Literal["aarch64", "x86_64"]
    device_tree: str | None = None
    """Part of /proc/device-tree/model or compatible by which `moedge doctor` knows the board."""
    memory: Memory
    cores: Annotated[list[Cores], Field(min_length=1)]
    instruction_sets: InstructionSets
    storage: Annotated[dict[Name, Storage], Field(min_length=1)]
    """By kind; the first one is what is planned with."""
    power_modes: Names | None = None
    """The fastest first, as nvpmodel names them; null for a board that has none."""
    cameras: Names
    """Kinds of camera source (docs/cameras.md) and what they go through."""
    providers: Names
    """Execution providers of ONNX Runtime that the board could have. moedge has run `cpu` only."""
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _available_is_part_of_total(self) -> Profile:
        if self.memory.available_gib.value > self.memory.total_gib.value:
            raise ValueError(
                f"memory.available_gib {self.memory.available_gib.value} is more than total_gib "
                f"{self.memory.total_gib.value}"
            )
        return self

    def figures(self) -> dict[str, Figure]:
        """Every figure by its path, for example `storage.nvme.read_gb_s`."""
        return dict(_figures("", self))


def _figures(path: str, value: object) -> list[tuple[str, Figure]]:
    if isinstance(value, Figure):
        return [(path, value)]
    children: list[tuple[str, object]] = []
    if isinstance(value, BaseModel):
        children = [(name, getattr(value, name)) for name in type(value).model_fields]
    elif isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = [(str(index), child) for index, child in enumerate(value)]
    return [found for name, child in children for found in _figures(f"{path}.{name}" if path else name, child)]
