"""TLS with a real mosquitto: what is wrong with certificates, and their renewal while the client runs."""

from __future__ import annotations

import re
import shutil
import ssl
import threading
from pathlib import Path

import pytest
from moedge_runtime.errors import BrokerError
from moedge_runtime.mqtt.acl import Access, acl_text
from moedge_runtime.mqtt.address import BrokerAddress, Connection
from moedge_runtime.mqtt.client import MqttClient
from moedge_runtime.mqtt.message import Message
from moedge_runtime.mqtt.session import Session
from moedge_runtime.mqtt.tls import TlsFiles
from runtime.mqtt.brokers import Mosquitto
from runtime.mqtt.certificates import Authority
from runtime.mqtt.listener import Listener
from runtime.mqtt.test_client import PRESENCE, WatchedBackoff, wait_connected, wait_until


def tls_broker(directory: Path, certificate: Path, key: Path, *lines: str) -> tuple[Mosquitto, BrokerAddress]:
    broker = Mosquitto(directory, f"certfile {certificate}", f"keyfile {key}", *(lines or ("allow_anonymous true",)))
    plain = broker.start()
    return broker, BrokerAddress(plain.host, plain.port, tls=True)


def refusal(connection: Connection) -> BrokerError:
    with pytest.raises(BrokerError) as caught:
        Session(connection).open()
    assert caught.value.key == "broker.tls"
    return caught.value


def test_an_expired_certificate_of_the_broker_is_refused_by_name_and_date(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    broker, address = tls_broker(tmp_path, *authority.issue("server", expired=True))
    error = refusal(Connection(address, ca=authority.ca))
    broker.stop()
    assert re.fullmatch(
        rf"TLS with broker {address} failed: certificate has expired\. Check ca, cert, key and this board's clock "
        r"\(it says \d{4}-\d\d-\d\d\)\.",
        str(error),
    )


def test_a_broker_of_another_authority_is_refused(tmp_path: Path) -> None:
    broker, address = tls_broker(tmp_path, *Authority(tmp_path / "theirs").issue("server"))
    error = refusal(Connection(address, ca=Authority(tmp_path / "ours").ca))
    broker.stop()
    assert "certificate" in str(error) and "verify" not in str(error).partition("failed: ")[0]


def test_a_certificate_of_another_host_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    broker, address = tls_broker(tmp_path, *authority.issue("server"))
    error = refusal(Connection(BrokerAddress("localhost", address.port, tls=True), ca=authority.ca))
    broker.stop()
    assert "Hostname mismatch" in str(error)


def client_for(
    address: BrokerAddress, authority: Authority, certificate: tuple[Path, Path] | None = None
) -> MqttClient:
    cert, key = certificate or (None, None)
    return MqttClient(
        Connection(address, client_id="d", ca=authority.ca, cert=cert, key=key),
        presence=PRESENCE,
        requests="d/request/+",
        on_request=lambda message: None,
        backoff=WatchedBackoff(),
        tls_check_s=0.05,
    )


def mutual(directory: Path, authority: Authority, *lines: str) -> tuple[Mosquitto, BrokerAddress]:
    return tls_broker(
        directory,
        *authority.issue("server"),
        f"cafile {authority.ca}",
        "require_certificate true",
        "use_identity_as_username true",
        *lines,
    )


def chatter(client: MqttClient, done: threading.Event) -> None:
    """Answers all the time: a busy client looks at its certificates too."""
    while not done.wait(0.005):
        client.publish(Message("d/answer", b"x"))


def test_a_renewed_client_certificate_is_taken_without_going_offline(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    authority = Authority(tmp_path)
    broker, address = mutual(tmp_path, authority)
    certificate, key = authority.issue("client", common_name="first")
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.load_cert_chain(*authority.issue("other"))
    client = client_for(address, authority, (certificate, key))
    client.start()
    wait_connected(client)
    with Listener(address, "d/status", context=context) as listener:
        traffic = threading.Thread(target=chatter, args=(client, done := threading.Event()))
        traffic.start()
        authority.issue("next", common_name="second")
        shutil.copy(tmp_path / "next.pem", certificate)
        wait_until(lambda: "cannot be used" in caplog.text, "the half renewed pair is noticed")
        assert client.counters.connects == 1, "the old pair goes on"
        shutil.copy(tmp_path / "next.key", key)
        wait_until(lambda: client.counters.connects == 2 and client.connected, "the new connection")
        client.publish(Message("d/status", b"still online", retain=True))
        listener.message("d/status", "still online")
        assert b"offline" not in listener.on("d/status")
        done.set()
        traffic.join()
    assert client.close(30)
    broker.stop()
    log = broker.log()
    assert "u'first'" in log and "u'second'" in log, "mosquitto saw both names"


def test_the_device_is_its_certificate_and_the_access_list_holds(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "acl").write_text(acl_text(Access("t", ["d"])))
    broker, address = mutual(tmp_path, authority, f"acl_file {tmp_path / 'acl'}")
    certificate, key = authority.issue("client", common_name="d")
    refusals: list[str | None] = []
    session = Session(
        Connection(address, ca=authority.ca, cert=certificate, key=key),
        on_delivered=lambda number, refused: refusals.append(refused),
    )
    session.open()
    session.publish(Message("t/d/info", b"x"))
    session.publish(Message("t/e/info", b"x"))
    wait_until(lambda: len(refusals) == 2, "both acknowledgements")
    session.close()
    broker.stop()
    assert refusals == [None, "Not authorized"]


def test_an_expired_client_certificate_is_an_error_until_there_is_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    broker, address = mutual(tmp_path, authority)
    certificate, key = authority.issue("client", expired=True)
    client = client_for(address, authority, (certificate, key))
    client.start()
    wait_until(lambda: "Trying again." in caplog.text, "the refusal")
    assert not client.connected
    authority.issue("client")
    wait_connected(client)
    assert client.close(30)
    broker.stop()


def test_files_that_never_could_be_used_are_an_error_that_names_the_keys(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, _ = authority.issue("client")
    _, key = authority.issue("other")
    files = TlsFiles(Connection(BrokerAddress("h", 8883, tls=True), ca=authority.ca, cert=certificate, key=key))
    with pytest.raises(BrokerError, match=r"KEY_VALUES_MISMATCH. Check mqtt\.ca, mqtt\.cert and mqtt\.key\."):
        files.context()
    assert not files.renewed()
