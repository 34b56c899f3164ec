"""`moedge fleet check` and `moedge fleet render` of a large fleet, as a user runs them: a process each."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import report

from fleet.fleet_file import device_names, fleet_text

DEVICES = 5_000
BOUND_S = 30.0
_TLS = (
    '{url: "mqtts://broker.example:8883", ca: /etc/moedge/ca.pem, cert: /etc/moedge/device.pem, '
    "key: /etc/moedge/device.key}"
)
_COMMAND = "import sys; from moedge_devices.fleet.cli import fleet; fleet(sys.argv[1:])"


def measure_files() -> bool:
    """Print the times; whether all are right."""
    with tempfile.TemporaryDirectory(prefix="moedge-bench-fleet-") as directory:
        path = Path(directory) / "fleet.yaml"
        path.write_text(fleet_text(device_names(DEVICES), _TLS))
        report("fleet_file_size", path.stat().st_size / 1e6, "MB")
        check_s, check_cpu_s = _run("check", str(path))
        render_s, render_cpu_s = _run("render", "-f", str(path), "--out", f"{directory}/out")
        files = sum(item.name == "moedge.yaml" for item in Path(directory, "out").rglob("*"))
        again_s, _ = _run("render", "-f", str(path), "--out", f"{directory}/out")
    report("fleet_check_5000_devices_cpu", check_cpu_s, "s of one core")
    report("fleet_render_5000_devices_cpu", render_cpu_s, "s of one core")
    return all(
        (
            report("fleet_check_5000_devices", check_s, "s", BOUND_S),
            report("fleet_render_5000_devices", render_s, "s", BOUND_S),
            report("fleet_check_and_render_5000_devices", check_s + render_s, "s", BOUND_S),
            report("fleet_render_again_5000_devices", again_s, "s", BOUND_S),
            report("fleet_rendered_configurations", files, "files", DEVICES, least=True),
        )
    )


def _run(*arguments: str) -> tuple[float, float]:
    """Seconds by the clock, and of processors."""
    began_s, cpu_s = time.monotonic(), _cpu_s()
    subprocess.run([sys.executable, "-c", _COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began_s, _cpu_s() - cpu_s


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
