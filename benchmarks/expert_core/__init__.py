"""The expert core against ONNX Runtime's QMoE and against the machine's limits. Run through `make bench-core`."""
