"""Answers questions about pictures on the board: onnxruntime and numpy, neither torch nor transformers.

`Engine` is imported when it is first used, since it brings ONNX Runtime with it.
"""

from typing import TYPE_CHECKING, Any

from moedge_runtime.inference.experts import ExpertBank, ExpertStatistics
from moedge_runtime.inference.request import Answer, AskRequest, EngineOptions, FinishReason, Timing
from moedge_runtime.inference.sampling import Sampling

if TYPE_CHECKING:
    from moedge_runtime.inference.engine import Engine

__all__ = [
    "Answer",
    "AskRequest",
    "Engine",
    "EngineOptions",
    "ExpertBank",
    "ExpertStatistics",
    "FinishReason",
    "Sampling",
    "Timing",
]


def __getattr__(name: str) -> Any:
    if name == "Engine":
        from moedge_runtime.inference.engine import Engine  # noqa: PLC0415

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
