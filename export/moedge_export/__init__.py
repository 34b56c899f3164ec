"""Converts and quantizes a Hugging Face checkpoint into a moedge bundle; runs on a workstation, never on a board."""

import moedge_runtime  # noqa: F401  before ONNX Runtime, whose telemetry it turns off
