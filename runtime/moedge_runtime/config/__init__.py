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
from moedge_runtime.config.web import MetricsConfig, ProtectionConfig, WebConfig

__all__ = [
    "AlertConfig",
    "CameraConfig",
    "Config",
    "EmbeddedBrokerConfig",
    "MetricsConfig",
    "ModelConfig",
    "MotionConfig",
    "MqttConfig",
    "ProtectionConfig",
    "TimeConfig",
    "WatchConfig",
    "WebConfig",
    "load_config",
]
