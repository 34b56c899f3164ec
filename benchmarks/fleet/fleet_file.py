"""The text of a fleet: 250 devices a site, 50 a group, each with cameras of its own, a third with a watch more."""

from __future__ import annotations

DEVICES_PER_GROUP = 50
GROUPS_PER_SITE = 5

_HEAD = """\
version: 1
defaults:
  bundle: {{name: qwen3-vl-30b-int4, version: "2026.11"}}
  update:
    channel: stable
    windows:
      - {{start: "02:00", end: "04:00", timezone: Europe/Berlin}}
  config:
    model: {{bundle: /var/lib/moedge/bundles/qwen3-vl-30b-int4, memory: 6G}}
    mqtt: {mqtt}
    watches:
      - {{name: level, camera: gate, question: "How full is it?", interval: 10s}}
      - name: lamps
        camera: gate
        question: "Which lamps are on?"
        interval: 1m
        json_schema:
          type: object
          properties: {{red: {{type: boolean}}, green: {{type: boolean}}}}
          required: [red, green]
sites:
"""
_CAMERA = '{{source: "rtsp://10.{}.{}.{}/stream1", username: moedge, password: "${{CAMERA_PASSWORD}}"}}'


def fleet_text(names: list[str], mqtt: str) -> str:
    """A fleet file of the devices `names`; `mqtt` is the YAML of its broker."""
    lines = []
    for number, name in enumerate(names):
        group, place = divmod(number, DEVICES_PER_GROUP)
        if place == 0:
            if group % GROUPS_PER_SITE == 0:
                lines += [f"  site-{group // GROUPS_PER_SITE}:", "    groups:"]
            lines += [f"      line-{group % GROUPS_PER_SITE}:", "        config: {health: {interval: 30s}}"]
            lines += ["        devices:"]
        high, low = divmod(number, 250)
        lines += [
            f"          {name}:",
            "            config:",
            "              cameras:",
            f"                gate: {_CAMERA.format(1, high, low)}",
            f"                yard: {_CAMERA.format(2, high, low)}",
        ]
        if number % 3 == 0:
            watch = '{name: yard, camera: yard, question: "Is anyone there?", interval: 5s}'
            lines += ["              watches:", f"                - {watch}"]
    return _HEAD.format(mqtt=mqtt) + "\n".join(lines) + "\n"


def device_names(count: int) -> list[str]:
    """Names of devices: `panel-0000`, `panel-0001`, …."""
    return [f"panel-{number:04}" for number in range(count)]
