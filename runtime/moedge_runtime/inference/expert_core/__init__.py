"""The native expert core: experts paged from flash into a byte budget, computed in C++ (runtime/core).

`NativeExperts` is imported when it is first used, so that reading counts or sizes needs no library.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moedge_runtime.inference.expert_core.bank import NativeExperts

__all__ = ["NativeExperts"]


def __getattr__(name: str) -> Any:
    if name == "NativeExperts":
        from moedge_runtime.inference.expert_core.bank import NativeExperts  # noqa: PLC0415

        return NativeExperts
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
