"""What measurements say about the distance between limits and reality: devices/calibration.yaml, typed."""

from __future__ import annotations

from functools import cache
from typing import Literal

from pydantic import BaseModel, ConfigDict

from moedge_devices.data_files import data_path
from moedge_devices.profile.model import Figure, InstructionSet
from moedge_devices.typed_yaml import load_typed

Routing = Literal["skewed", "uniform"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ByRouting(_Frozen):
    """A figure for each assumption about routing."""

    skewed: Figure
    uniform: Figure

    def of(self, routing: Routing) -> float:
        """The value under `routing`."""
        return self.skewed.value if routing == "skewed" else self.uniform.value


class OperationsPerCycle(_Frozen):
    """Of one core, by instruction set."""

    experts: dict[InstructionSet, Figure]
    layers: dict[InstructionSet, Figure]
    vision: dict[InstructionSet, Figure]


class OverLimit(_Frozen):
    """Measured time over the limit."""

    prefill_flash: ByRouting
    decode_flash: Figure
    decode_memory: Figure


class Calibration(_Frozen):
    """All of calibration.yaml."""

    version: Literal[1]
    operations_per_cycle: OperationsPerCycle
    over_limit: OverLimit
    decode_not_hidden: Figure
    missed_over_ideal: ByRouting
    vision_in_onnxruntime: Figure
    vision_packing_core_s: Figure
    vision_loading_core_s: Figure
    preprocess_s: Figure


@cache
def calibration() -> Calibration:
    """The calibration that is shipped.

    Raises:
        ConfigError: The file is wrong.
    """
    return load_typed(data_path("calibration.yaml"), Calibration, "Calibration")
