"""A small fleet for tests."""

from __future__ import annotations

import textwrap
from pathlib import Path

from moedge_devices.fleet import Fleet, load_fleet

FLEET = """\
version: 1
defaults:
  bundle: {name: qwen3-vl-30b-int4, version: "2026.11"}
  update: {channel: stable}
  config:
    model: {bundle: /var/lib/moedge/bundles/qwen3-vl-30b-int4, memory: 6G}
    mqtt: {url: "mqtt://127.0.0.1:1883"}
    watches:
      - {name: level, camera: gate, question: "How full is it?", interval: 10s}
      - {name: lamps, camera: gate, question: "Which lamps are on?", interval: 1m}
sites:
  berlin:
    config:
      health: {interval: 30}
    groups:
      press:
        config:
          watches:
            - {name: level, interval: 20s}
        devices:
          panel-01:
            config:
              cameras:
                gate: {source: "rtsp://10.0.0.1/s", username: moedge, password: "${CAMERA_PASSWORD}"}
          panel-02:
            remove: [watches.lamps]
            config:
              cameras:
                gate: {source: "rtsp://10.0.0.2/s"}
      paint:
        devices:
          panel-03:
            config: {cameras: {gate: {source: "rtsp://10.0.0.3/s"}}}
  paris:
    groups:
      hall:
        devices:
          panel-04:
            config: {cameras: {gate: {source: "rtsp://10.0.0.4/s"}}}
"""


def write(directory: Path, text: str = FLEET, name: str = "fleet.yaml") -> Path:
    path = directory / name
    path.write_text(textwrap.dedent(text))
    return path


def sample(directory: Path, text: str = FLEET) -> Fleet:
    return load_fleet(write(directory, text))
