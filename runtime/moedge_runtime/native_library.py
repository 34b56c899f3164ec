"""Loads a native library of moedge through ctypes, and says what is wrong if that cannot be done."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moedge_runtime.errors import ConfigError

Functions = dict[str, tuple[Any, tuple[Any, ...]]]
"""Result and arguments of each function; arrays are passed as addresses."""


@dataclass(frozen=True)
class NativeLibrary:
    """What a library is called and has.

    Attributes:
        title: In messages, e.g. `expert core`.
        key: First word of the keys of its errors.
        functions: By name.
        otherwise: A sentence on what works without it.
    """

    title: str
    key: str
    functions: Functions
    otherwise: str = ""

    def load(self, path: Path) -> ctypes.CDLL:
        """Load the library; its functions run without Python's global lock.

        Raises:
            ConfigError: It is not there, not for this system, or of another version than this Python code.
        """
        if not path.is_file():
            raise ConfigError(
                f"The {self.title} is not built: there is no '{path}'. Install g++ and run `pip install` again, or "
                f"install a wheel of moedge.{' ' * bool(self.otherwise)}{self.otherwise}",
                key=f"{self.key}.not_built",
            )
        try:
            library = ctypes.CDLL(str(path))
        except OSError as error:
            raise ConfigError(
                f"The {self.title} cannot be loaded: {error}. It was built for another system: install g++ and run "
                f"`pip install` again, or install the wheel for this one.",
                key=f"{self.key}.not_loadable",
            ) from error
        for name, (result, arguments) in self.functions.items():
            try:
                function = getattr(library, name)
            except AttributeError:
                raise self.other_version(path, f"it has no function {name}") from None
            function.restype, function.argtypes = result, arguments
        return library

    def other_version(self, path: Path, reason: str) -> ConfigError:
        """The error for a library that does not belong to this Python code; `reason` is a clause."""
        return ConfigError(
            f"The {self.title} '{path}' is not of this moedge's version: {reason}. Run `pip install` again.",
            key=f"{self.key}.version_differs",
        )
