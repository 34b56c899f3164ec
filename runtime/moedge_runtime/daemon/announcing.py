"""What a device announces, what it leaves on the broker, and what a reload takes away again. Pure."""

from __future__ import annotations

from moedge_runtime import __version__
from moedge_runtime.config import Config
from moedge_runtime.daemon.cameras import cameras_with_motion
from moedge_runtime.daemon.switches import defaults_of
from moedge_runtime.daemon.updates import store_of
from moedge_runtime.mqtt.home_assistant import announcement, discovery_topic
from moedge_runtime.mqtt.message import Message
from moedge_runtime.mqtt.payloads import HomeAssistantDevice
from moedge_runtime.mqtt.topics import Topics


def announcements(config: Config, model: str, before: Config | None, *, can_update: bool) -> list[Message]:
    """What announces the device to Home Assistant, in this order; nothing if it is not to be announced.

    Args:
        config: That of the device.
        model: Name of the model.
        before: The configuration before a reload: components that it announced and that are gone are removed.
        can_update: Whether updates of the model can be started by a request.
    """
    home = config.mqtt.home_assistant
    if home is None:
        return []
    topic = discovery_topic(home.prefix, config.device)
    now = _announcement(config, model, can_update=can_update)
    messages = [Message(topic, now.encode(), retain=True)]
    if before is not None and before.mqtt.home_assistant == home and before.device == config.device:
        earlier = _announcement(before, model, can_update=can_update)
        if earlier.components.keys() - now.components.keys():
            gone = _announcement(config, model, earlier, can_update=can_update)
            messages.append(Message(topic, gone.encode()))
    return messages


def removals(config: Config, before: Config) -> list[Message]:
    """Empty messages, which take away what the configuration before a reload left and the new one does not have."""
    gone: list[Message] = []
    home, home_before = config.mqtt.home_assistant, before.mqtt.home_assistant
    if home_before is not None and (
        home is None or home.prefix != home_before.prefix or before.device != config.device
    ):
        gone.append(Message(discovery_topic(home_before.prefix, before.device), b"", retain=True))
    if Topics(before.mqtt.base_topic, before.device) == Topics(config.mqtt.base_topic, config.device):
        now = set(retained_topics(config))
        gone += [Message(topic, b"", retain=True) for topic in retained_topics(before) if topic not in now]
    return gone


def retained_topics(config: Config) -> list[str]:
    """Of its cameras and watches, those on which a daemon with `config` may leave a retained message."""
    topics = Topics(config.mqtt.base_topic, config.device)
    per_camera = (topics.camera_status, topics.last_answer, topics.snapshot)
    retained = [topic(camera) for camera in config.cameras for topic in per_camera]
    retained += [topics.motion(camera) for camera in cameras_with_motion(config)]
    retained += [topics.feature_state(camera, feature) for camera, feature in defaults_of(config)]
    retained += [topics.alert(watch.camera, watch.name) for watch in config.watches if watch.alert is not None]
    if config.mqtt.home_assistant is not None:
        retained += [topics.watch(watch.camera, watch.name) for watch in config.watches]
    return retained


def _announcement(
    config: Config, model: str, before: HomeAssistantDevice | None = None, *, can_update: bool
) -> HomeAssistantDevice:
    return announcement(
        Topics(config.mqtt.base_topic, config.device),
        version=__version__,
        model=model,
        cameras={name: [watch.name for watch in config.watches if watch.camera == name] for name in config.cameras},
        alerts=[watch.name for watch in config.watches if watch.alert is not None],
        motion=cameras_with_motion(config),
        zones={name: list(camera.zones) for name, camera in config.cameras.items()},
        units={watch.name: watch.unit for watch in config.watches if watch.unit is not None},
        updates=store_of(config.model.bundle) is not None,
        can_update=can_update,
        before=before,
    )
