"""Cameras: sources of frames behind one port, chosen by the scheme of a URL."""

from moedge_runtime.camera.frame import Frame, FrameSource
from moedge_runtime.camera.open import SourceOptions, is_live, open_source

__all__ = ["Frame", "FrameSource", "SourceOptions", "is_live", "open_source"]
