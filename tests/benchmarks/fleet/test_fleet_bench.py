import json
from pathlib import Path

import pytest
from figures import percentile, report
from fleet.device_process import GOLDEN
from fleet.fleet_file import device_names, fleet_text
from moedge_devices.fleet import load_fleet


def test_the_text_is_a_fleet_of_that_many_devices(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(fleet_text(device_names(260), '{url: "mqtt://127.0.0.1:1883"}'))
    fleet = load_fleet(path)
    assert list(fleet.devices) == device_names(260)
    assert len(fleet.groups()) == 6 and len({device.site for device in fleet.devices.values()}) == 2
    assert len({str(device.config.cameras) for device in fleet.devices.values()}) == 260


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (51.0, 100.0, 100.0)
    assert percentile([], 99) == 0.0


@pytest.mark.parametrize(("least", "ok"), [(False, False), (True, True)])
def test_a_line_says_whether_the_bound_is_kept(capsys: pytest.CaptureFixture[str], least: bool, ok: bool) -> None:
    assert report("x", 2.0, "s", 1.0, least=least) is ok
    assert json.loads(capsys.readouterr().out) == {"name": "x", "value": 2.0, "unit": "s", "bound": 1.0, "ok": ok}


@pytest.mark.parametrize("name", ["info", "health", "answer", "camera_status_online"])
def test_the_payloads_that_are_sent_are_the_daemons(name: str) -> None:
    assert (GOLDEN / f"{name}.json").is_file()
