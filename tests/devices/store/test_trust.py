"""Who is believed: keys and their rotation, the index, its age."""

from __future__ import annotations

import base64
import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from devices.store.samples import Board, Publisher, make_key
from moedge_devices.store import openssl
from moedge_devices.store.documents import INDEX_TYPE, KEYS_TYPE
from moedge_devices.store.envelope import encoded, seal, unseal
from moedge_devices.store.errors import TrustError
from moedge_devices.store.publish import publish
from moedge_devices.store.trust import Clock
from moedge_runtime.errors import ConfigError

DAY = timedelta(days=1)


def refused(board: Board, **options: object) -> TrustError:
    with pytest.raises(TrustError) as caught:
        board.index(**options)  # type: ignore[arg-type]
    return caught.value


def test_an_index_that_a_signer_has_signed_is_believed(publisher: Publisher, board: Board) -> None:
    publisher.release("1")
    assert [release.label for release in board.index().releases] == ["panel@1"]
    assert board.warnings == [] or "no time server" in board.warnings[0]


def test_the_signature_covers_the_type_so_that_keys_are_never_taken_for_an_index(tmp_path: Path) -> None:
    private, public = make_key(tmp_path, "key")
    keys = {openssl.key_id(public.read_text()): public.read_text()}
    sealed = seal(KEYS_TYPE, b"{}", [private])
    assert unseal(sealed, KEYS_TYPE, keys, "It")[0] == b"{}"
    with pytest.raises(TrustError, match="must be"):
        unseal(sealed, INDEX_TYPE, keys, "It")
    renamed = json.loads(sealed) | {"payloadType": INDEX_TYPE}
    with pytest.raises(TrustError) as caught:
        unseal(json.dumps(renamed).encode(), INDEX_TYPE, keys, "It")
    assert caught.value.key == "update.tampered"
    assert encoded("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    ), "the example of DSSE's protocol.md"


def test_an_unsigned_a_tampered_and_a_foreign_index_are_refused(
    publisher: Publisher, board: Board, tmp_path: Path
) -> None:
    publisher.release("1")
    path = publisher.directory / "index.json"
    good = json.loads(path.read_text())
    payload = base64.b64decode(good["payload"])
    path.write_bytes(payload)
    assert refused(board).key == "update.unsigned"
    path.write_text(json.dumps(good | {"signatures": []}))
    assert refused(board).key == "update.unknown_signer"
    changed = base64.b64encode(payload.replace(b'"stable"', b'"stabla"')).decode()
    path.write_text(json.dumps(good | {"payload": changed}))
    assert refused(board).key == "update.tampered"
    foreign, _ = make_key(tmp_path, "foreign")
    path.write_bytes(seal(INDEX_TYPE, payload, [foreign]))
    assert refused(board).key == "update.unknown_signer"
    named = json.loads(path.read_text())
    named["signatures"][0]["keyid"] = good["signatures"][0]["keyid"]
    path.write_text(json.dumps(named))
    assert refused(board).key == "update.tampered", "a foreign key under a trusted name"
    path.write_bytes(seal(INDEX_TYPE, payload, [publisher.root]))
    assert refused(board).key == "update.unknown_signer", "the root key signs keys only"
    path.write_text(json.dumps(good))
    assert board.index().releases


def test_an_old_index_is_not_believed_again(publisher: Publisher, board: Board) -> None:
    publisher.release("1")
    path = publisher.directory / "index.json"
    old = path.read_bytes()
    publisher.release("2")
    assert len(board.index().releases) == 2
    path.write_bytes(old)
    assert refused(board).key == "update.old_index"


def test_an_expired_index_is_refused_if_the_time_is_known(publisher: Publisher, board: Board) -> None:
    publisher.release("1")
    now = datetime.now(timezone.utc)
    assert board.index(clock=Clock(now + 89 * DAY, True)).releases
    error = refused(board, clock=Clock(now + 91 * DAY, True))
    assert error.key == "update.expired" and "Publish again" in str(error)


@pytest.mark.parametrize("synced", [False, None])
def test_a_board_whose_clock_is_in_1970_goes_on_getting_updates_and_says_so(
    publisher: Publisher, board: Board, synced: bool | None
) -> None:
    publisher.release("1")
    assert board.index(clock=Clock(datetime(1970, 1, 1, tzinfo=timezone.utc), synced)).releases
    assert "1970-01-01T00:00:00Z and no time server keeps it" in board.warnings[-1]
    assert board.index(clock=Clock(datetime(2099, 1, 1, tzinfo=timezone.utc), synced)).releases, "a wrong clock, too"


def test_a_newer_index_is_a_clock_too(publisher: Publisher, board: Board) -> None:
    """Without a time server, an index that expired before another one was made is refused."""
    publisher.release("1")
    unset = Clock(datetime(1970, 1, 1, tzinfo=timezone.utc), False)
    later = (datetime.now(timezone.utc) + 365 * DAY).timestamp()
    publish(publisher.directory, publisher.key, now=lambda: later)
    board.index(clock=unset)
    serial = int(later) + 1
    payload = {"serial": serial, "created": "2026-01-01T00:00:00Z", "expires": "2026-04-01T00:00:00Z"}
    (publisher.directory / "index.json").write_bytes(seal(INDEX_TYPE, json.dumps(payload).encode(), [publisher.key]))
    assert refused(board, clock=unset).key == "update.expired"


def test_a_publisher_whose_clock_is_in_1970_changes_nothing(publisher: Publisher) -> None:
    publisher.release("1")
    before = (publisher.directory / "index.json").read_bytes()
    with pytest.raises(ConfigError, match=r"clock of this machine says 1970-01-01T00:00:00Z.*Set the clock"):
        publish(publisher.directory, publisher.key, now=lambda: 0.0)
    assert (publisher.directory / "index.json").read_bytes() == before
    publish(publisher.directory, publisher.key, now=lambda: 0.0, days=365 * 1000)


def test_a_new_signing_key_is_taken_and_the_revoked_one_is_not(publisher: Publisher, board: Board) -> None:
    publisher.release("1")
    board.index()
    old_key = publisher.key
    new_key, new_pub = make_key(publisher.place, "signing-2")
    publisher.publish_keys(2, [publisher.root_pub], [new_pub], [publisher.root])
    assert refused(board).key == "update.unknown_signer", "the index is still that of the revoked key"
    with pytest.raises(ConfigError, match="Boards would refuse the index"):
        publish(publisher.directory, old_key)
    publisher.key = new_key
    publisher.release("2")
    assert len(board.index().releases) == 2
    (publisher.directory / "keys" / "2.json").unlink()
    payload = json.dumps({"serial": 2**40, "created": "2026-01-01T00:00:00Z", "expires": "2099-01-01T00:00:00Z"})
    (publisher.directory / "index.json").write_bytes(seal(INDEX_TYPE, payload.encode(), [old_key]))
    assert refused(board).key == "update.unknown_signer", "who hides the new keys does not bring the old ones back"


def test_a_new_root_is_taken_if_the_old_one_says_so(publisher: Publisher, board: Board, tmp_path: Path) -> None:
    new_root, new_root_pub = make_key(publisher.place, "root-2")
    with pytest.raises(ConfigError, match="signed by"):
        publisher.publish_keys(2, [new_root_pub], [publisher.pub], [new_root])
    publisher.publish_keys(2, [new_root_pub], [publisher.pub], [publisher.root, new_root])
    third, third_pub = make_key(publisher.place, "signing-3")
    publisher.publish_keys(3, [new_root_pub], [third_pub], [new_root])
    publisher.key = third
    publisher.release("1")
    assert board.index().releases, "two versions forward at once"


def test_keys_that_the_old_root_has_not_signed_change_nothing(publisher: Publisher, board: Board) -> None:
    from moedge_devices.store.publish import make_keys

    publisher.release("1")
    evil, evil_pub = make_key(publisher.place, "evil")
    _, signer_pub = make_key(publisher.place, "evil-signer")
    content = make_keys(2, [evil_pub.read_text()], [signer_pub.read_text()], [evil])
    (publisher.directory / "keys" / "2.json").write_bytes(content)
    assert refused(board).key == "update.unknown_signer"
    assert board.memory().seen.keys is None
    (publisher.directory / "keys" / "2.json").unlink()
    assert board.index().releases


def test_a_root_key_is_no_signer_and_other_kinds_of_keys_are_refused(publisher: Publisher) -> None:
    with pytest.raises(ConfigError, match="a root key never signs an index"):
        publisher.publish_keys(2, [publisher.root_pub], [publisher.root_pub], [publisher.root])
    with pytest.raises(ValueError, match="no Ed25519 key"):
        openssl.key_id("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VuAyEAAAAA\n-----END PUBLIC KEY-----\n")


def test_what_was_seen_survives_damage_of_its_file_with_a_warning(publisher: Publisher, board: Board) -> None:
    publisher.release("1")
    board.index()
    board.store.trust.write_text("{")
    assert board.index().releases
    assert any("is damaged" in warning for warning in board.warnings)


def test_nothing_secret_is_printed(publisher: Publisher, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    publisher.release("1")
    broken = tmp_path / "broken.key"
    secret = re.sub(r"\s|-----[A-Z ]+-----", "", publisher.key.read_text())
    broken.write_text(publisher.key.read_text().replace("BEGIN", "BEGUN"))
    with pytest.raises(ConfigError) as caught:
        publish(publisher.directory, broken)
    output = capfd.readouterr()
    assert secret not in str(caught.value) + output.out + output.err
