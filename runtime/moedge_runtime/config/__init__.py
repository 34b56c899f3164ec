"""moedge.yaml: what one board does, as frozen typed objects. docs/configuration.md lists every key."""

from moedge_runtime.config.frames import AlertConfig, MotionConfig, TimeConfig
from moedge_runtime.config.load import load_config
from moedge_runtime.config.model import (
    CameraConfig,
    Config,
    EmbeddedBrokerConfig,
    ModelConfig,
    MqttConfig,
    WatchConfig,
)

__all__ = [
    "AlertConfig",
    "CameraConfig",
    "Config",
    "EmbeddedBrokerConfig",
    "ModelConfig",
    "MotionConfig",
    "MqttConfig",
    "TimeConfig",
    "WatchConfig",
    "load_config",
]
