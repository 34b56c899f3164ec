"""An access list for mosquitto in which every device and every person may do what they need and nothing else. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moedge_runtime.mqtt.home_assistant import birth_topic, discovery_topic
from moedge_runtime.mqtt.topics import Topics, check_base_topic


@dataclass(frozen=True)
class Access:
    """Who may do what.

    Attributes:
        base: Base topic of all devices.
        devices: Their names, which are their user names too.
        operators: Users that read everything, may send every request and switch everything.
        viewers: Users that read everything.
        inboxes: Topics below which devices may send responses, for requests with a response topic elsewhere.
        home_assistant: Its user; None for none.
        prefix: Its discovery prefix.
    """

    base: str
    devices: Sequence[str]
    operators: Sequence[str] = ()
    viewers: Sequence[str] = ()
    inboxes: Sequence[str] = ()
    home_assistant: str | None = None
    prefix: str = "homeassistant"


def acl_text(access: Access) -> str:
    """The text of mosquitto's acl_file. Who is not named may do nothing.

    Raises:
        ValueError: A name or topic holds what would mean something else in the file.
    """
    check_base_topic(access.base)
    check_base_topic(access.prefix)
    for inbox in access.inboxes:
        check_base_topic(inbox)
    people = [*access.operators, *access.viewers, *([access.home_assistant] if access.home_assistant else [])]
    for name in (*access.devices, *people):
        if not name or name != name.strip() or not name.isprintable() or set(name) & set("+#/"):
            raise ValueError(f"a user's name has no blanks at its ends and no +, # or /; got {name!r}")
    names = [*access.devices, *people]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"every user is named once and has one role; named twice: {', '.join(twice)}")
    for topic in (access.base, access.prefix, *access.inboxes):
        if not topic.isprintable() or topic != topic.strip():
            raise ValueError(f"a topic has no blanks at its ends and no control characters; got {topic!r}")
    blocks = ["# Made by `moedge mqtt acl`. The user name of a device is its name in moedge.yaml."]
    blocks += [_block(device, _of_device(access, device)) for device in access.devices]
    blocks += [_block(name, [*_of_viewer(access), *_of_operator(access)]) for name in access.operators]
    blocks += [_block(name, _of_viewer(access)) for name in access.viewers]
    if access.home_assistant:
        blocks.append(_block(access.home_assistant, _of_home_assistant(access)))
    return "\n\n".join(blocks) + "\n"


def _block(user: str, rules: Sequence[str]) -> str:
    return "\n".join([f"user {user}", *(f"topic {rule}" for rule in rules)])


def _of_device(access: Access, device: str) -> list[str]:
    topics = Topics(access.base, device)
    written = [
        topics.status,
        topics.info,
        topics.health,
        topics.log,
        topics.update_state,
        topics.response("+"),
        topics.camera_status("+"),
        topics.event("+"),
        topics.answer("+"),
        topics.last_answer("+"),
        topics.alert("+", "+"),
        topics.motion("+"),
        topics.snapshot("+"),
        topics.watch("+", "+"),
        *topics.feature_states,
        *(f"{inbox}/#" for inbox in access.inboxes),
    ]
    read = [topics.requests, *topics.feature_sets]
    rules = [*(f"read {topic}" for topic in read), *(f"write {topic}" for topic in written)]
    if access.home_assistant:
        rules += [f"write {discovery_topic(access.prefix, device)}", f"read {birth_topic(access.prefix)}"]
    return rules


def _of_viewer(access: Access) -> list[str]:
    return [f"read {access.base}/#"]


def _of_operator(access: Access) -> list[str]:
    anywhere = Topics(access.base, "+")
    inboxes = [f"read {inbox}/#" for inbox in access.inboxes]
    written = [anywhere.requests, anywhere.latest_version, *anywhere.feature_sets]
    return [*(f"write {topic}" for topic in written), *inboxes]


def _of_home_assistant(access: Access) -> list[str]:
    anywhere = Topics(access.base, "+")
    written = [*(anywhere.request(verb) for verb in ("ask", "snapshot", "restart", "update")), *anywhere.feature_sets]
    return [f"read {access.base}/#", *(f"write {topic}" for topic in written), f"readwrite {access.prefix}/#"]
