"""Benchmarks of the dense layers: the native core beside ONNX Runtime."""
