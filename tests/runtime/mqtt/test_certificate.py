"""The end of a certificate, beside what openssl says."""

from __future__ import annotations

import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moedge_runtime.mqtt.certificate import _end_of, ends_at
from runtime.mqtt.certificates import Authority


@pytest.mark.parametrize("expired", [False, True])
def test_the_end_is_the_one_that_openssl_tells(tmp_path: Path, expired: bool) -> None:
    certificate, _ = Authority(tmp_path).issue("panel-01", expired=expired)
    command = ["openssl", "x509", "-in", str(certificate), "-noout", "-enddate"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    end = datetime.strptime(told, "notAfter=%b %d %H:%M:%S %Y GMT").replace(tzinfo=timezone.utc)
    assert ends_at(certificate) == end
    assert (end < datetime.now(timezone.utc)) is expired


def test_years_beyond_2049_are_written_in_another_way(tmp_path: Path) -> None:
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k -days 36500 -subj /CN=x -out"
    )
    subprocess.run([*command.split(), "far.pem"], cwd=tmp_path, check=True, capture_output=True)
    end = ends_at(tmp_path / "far.pem")
    assert end is not None
    assert abs(end - datetime.now(timezone.utc) - timedelta(days=36500)) < timedelta(hours=1)


def test_of_a_chain_the_first_certificate_counts_and_a_comment_before_it_does_not(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, _ = authority.issue("panel-01")
    chain = tmp_path / "chain.pem"
    chain.write_text(f"subject=Zürich\n{certificate.read_text()}{authority.ca.read_text()}")
    assert ends_at(chain) == ends_at(certificate) != ends_at(authority.ca)


def test_a_file_without_a_certificate_has_no_end(tmp_path: Path) -> None:
    _, key = Authority(tmp_path).issue("panel-01")
    assert ends_at(key) is None
    assert ends_at(tmp_path / "nothing.pem") is None
    (tmp_path / "half.pem").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    assert ends_at(tmp_path / "half.pem") is None


@given(st.binary(max_size=200))
def test_no_bytes_whatever_break_the_reader(der: bytes) -> None:
    with pytest.raises((ValueError, LookupError)):
        _end_of(der)
