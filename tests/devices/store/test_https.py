"""Over HTTPS with an authority of our own: resuming, faults of servers, certificates, clocks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from devices.store.https_server import HttpsServer
from devices.store.samples import Board, CountedSource, Publisher, tree
from moedge_devices.store import download
from moedge_devices.store.errors import SourceError, TrustError
from moedge_devices.store.source import HttpsSource
from moedge_runtime.errors import ConfigError
from runtime.mqtt.certificates import Authority


@pytest.fixture
def authority(place: Path) -> Authority:
    return Authority(place / "ca")


@pytest.fixture
def server(publisher: Publisher, authority: Authority) -> Iterator[HttpsServer]:
    publisher.release("1")
    with HttpsServer(publisher.directory, *authority.issue("server")) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download.Backoff, "next_s", lambda self: 0.0)


def source_of(server: HttpsServer, authority: Authority, **options: Path) -> HttpsSource:
    return HttpsSource(server.url, ca=authority.ca, **options)


def test_a_bundle_comes_over_https(server: HttpsServer, authority: Authority, board: Board) -> None:
    board.install(source=source_of(server, authority))
    assert tree(board.store.bundle("panel", "1")) == tree(board.publisher.place / "bundle-1")


def test_a_connection_that_breaks_is_gone_on_with_from_where_it_was(
    server: HttpsServer, authority: Authority, board: Board
) -> None:
    server.cut_after = 10_000
    source = CountedSource(source_of(server, authority))
    board.install(source=source)
    assert tree(board.store.bundle("panel", "1")) == tree(board.publisher.place / "bundle-1")
    resumed = [ranged for _, ranged in server.requests if ranged]
    assert resumed[:3] == ["bytes=10000-", "bytes=20000-", "bytes=30000-"]
    assert sum(source.streamed.values()) == 98_365, "every byte came once"


def test_a_run_that_was_stopped_is_gone_on_with_by_the_next(
    server: HttpsServer, authority: Authority, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.cut_after = 10_000
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    monkeypatch.setattr(server, "ranges", False)
    with pytest.raises(SourceError) as caught:
        board.install(source=source_of(server, authority))
    assert caught.value.key == "update.broken_off"
    assert board.store.installed() == []
    server.cut_after, server.ranges = None, True
    server.requests.clear()
    board.install(source=source_of(server, authority))
    assert "bytes=10000-" in [ranged for _, ranged in server.requests]


def test_a_server_without_ranges_begins_again(server: HttpsServer, authority: Authority, board: Board) -> None:
    with board.store.locked():
        pass
    largest = max((board.publisher.directory / "files").glob("*/*"), key=lambda path: path.stat().st_size)
    (board.store.partial / largest.name).write_bytes(largest.read_bytes()[:5000])
    server.ranges = False
    source = CountedSource(source_of(server, authority))
    board.install(source=source)
    assert source.begun_at == [0] * len(source.begun_at)
    assert tree(board.store.bundle("panel", "1")) == tree(board.publisher.place / "bundle-1")


def test_what_a_power_cut_left_of_a_download_is_no_reason_to_give_up(
    server: HttpsServer, authority: Authority, board: Board
) -> None:
    with board.store.locked():
        pass
    largest = max((board.publisher.directory / "files").glob("*/*"), key=lambda path: path.stat().st_size)
    for left in (b"\0" * 5000, b"\0" * largest.stat().st_size, b"\0" * (largest.stat().st_size + 1)):
        (board.store.partial / largest.name).write_bytes(left)
        board.install(source=source_of(server, authority))
        assert tree(board.store.bundle("panel", "1")) == tree(board.publisher.place / "bundle-1")
        with board.store.locked():
            board.store.remove("panel", "1")


def test_a_truncated_file_a_gone_server_and_other_answers_are_said(
    server: HttpsServer, authority: Authority, board: Board
) -> None:
    source = source_of(server, authority)
    board.index(source)
    server.truncate = 1
    with pytest.raises(SourceError, match=r"sent 98,303 of 98,304 bytes|refuses"):
        board.install(source=source)
    server.truncate = 0
    server.status = 503
    with pytest.raises(SourceError, match="HTTP 503"):
        board.install(source=source)
    server.status = 302
    with pytest.raises(SourceError, match="Redirections are not followed") as caught:
        board.install(source=source)
    assert caught.value.key == "update.redirected"
    server.status = 404
    with pytest.raises(TrustError, match=r"has no index\.json"):
        board.install(source=source)
    gone = HttpsSource("https://127.0.0.1:1", ca=authority.ca)
    with pytest.raises(SourceError, match="cannot be reached") as caught:
        board.install(source=gone)
    assert caught.value.key == "update.unreachable"
    assert board.store.installed() == []


def test_a_server_of_another_authority_and_an_expired_certificate_are_refused(
    publisher: Publisher, authority: Authority, board: Board, place: Path
) -> None:
    publisher.release("1")
    stranger = Authority(place / "stranger")
    for cert in (stranger.issue("server"), authority.issue("old", expired=True)):
        with HttpsServer(publisher.directory, *cert) as server:
            with pytest.raises(SourceError, match="The TLS connection to") as caught:
                board.index(source_of(server, authority))
            assert caught.value.key == "update.certificate"


def test_a_server_may_ask_for_the_devices_certificate(publisher: Publisher, authority: Authority, board: Board) -> None:
    publisher.release("1")
    cert, key = authority.issue("device", common_name="gate-01")
    with HttpsServer(publisher.directory, *authority.issue("server"), client_ca=authority.ca) as server:
        with pytest.raises(SourceError):
            board.index(source_of(server, authority))
        assert board.index(source_of(server, authority, cert=cert, key=key)).releases


def test_a_clock_in_1970_is_named_as_the_reason_why_no_certificate_is_valid(
    server: HttpsServer, authority: Authority
) -> None:
    code = (
        "import sys; from pathlib import Path; from moedge_devices.store.source import HttpsSource\n"
        "HttpsSource(sys.argv[1], ca=Path(sys.argv[2])).read('index.json', 99999)"
    )
    done = subprocess.run(
        ["faketime", "1970-01-02 00:00:00", sys.executable, "-c", code, server.url, str(authority.ca)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "The clock of this board says 1970-01-0" in done.stderr, done.stderr
    assert "the model that runs is not touched" in done.stderr


@pytest.mark.parametrize("url", ["http://host/x", "https://user:secret@host/x", "https://host/x?token=1", "ftp://host"])
def test_addresses_that_are_not_safe_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="Write https://HOST/PATH") as caught:
        HttpsSource(url)
    assert "secret" not in str(caught.value)
