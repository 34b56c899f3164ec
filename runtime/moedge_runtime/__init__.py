"""What runs on the board: bundles, inference, cameras, MQTT and the daemon that joins them."""

import os

__version__ = "0.1.0"

# From 1.29 on ONNX Runtime reports the use of models to its maker unless this says otherwise when it is imported. A
# board behind a fence reports to nobody whom its owner did not choose.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
