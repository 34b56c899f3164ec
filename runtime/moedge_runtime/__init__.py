"""What runs on the board: bundles, inference, cameras, MQTT and the daemon that joins them."""

__version__ = "0.1.0"
