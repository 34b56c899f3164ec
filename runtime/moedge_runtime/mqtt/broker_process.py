"""The process of the embedded broker: `python -m moedge_runtime.mqtt.broker_process CONFIG.toml`.

It ends when its standard input closes, and only then, so that the daemon can still say `stopped` after a Ctrl-C or a
SIGTERM that reached the whole process group.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading


def main(config_path: str) -> None:
    """Run rumqttd (in the wheel of iotcore) until standard input closes."""
    from iotcore import IotCoreBroker  # noqa: PLC0415

    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    IotCoreBroker(config_path=config_path).run_forever()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
