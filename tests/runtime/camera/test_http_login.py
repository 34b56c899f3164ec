import re

import pytest
from moedge_runtime.camera.credentials import Credentials
from moedge_runtime.camera.http_login import login_for

MUFASA = Credentials("Mufasa", "Circle Of Life")
CHALLENGE = (
    'Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
    'opaque="5ccc069c403ebaf9f0171e9517f40e41"'
)


def fields(header: str) -> dict[str, str]:
    return dict(re.findall(r'(\w+)="?([^",]+)"?', header))


def test_a_digest_is_that_of_the_example_in_rfc_2617(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda size: "0a4f113b")
    login = login_for([CHALLENGE], MUFASA)
    assert login is not None
    answer = fields(login.header("GET", "/dir/index.html"))
    assert answer["response"] == "6629fae49393a05397450978507c4ef1"
    assert (answer["nc"], answer["opaque"]) == ("00000001", "5ccc069c403ebaf9f0171e9517f40e41")
    assert fields(login.header("GET", "/dir/index.html"))["nc"] == "00000002"


def test_a_digest_is_that_of_the_example_in_rfc_7616(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda size: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")
    challenge = (
        'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=SHA-256, '
        'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
    )
    login = login_for([challenge], Credentials("Mufasa", "Circle of Life"))
    assert login is not None
    answer = fields(login.header("GET", "/dir/index.html"))
    assert answer["response"] == "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"


def test_a_digest_without_qop_is_answered_the_old_way() -> None:
    login = login_for(['Digest realm="r", nonce="n"'], MUFASA)
    assert login is not None
    assert set(fields(login.header("GET", "/"))) == {"username", "realm", "nonce", "uri", "response"}


@pytest.mark.parametrize(
    ("challenges", "word"),
    [
        (['Basic realm="x"', CHALLENGE], "Digest"),
        (['Basic realm="x"', 'Digest realm="x", nonce="n", algorithm=SHA-512-256'], "Basic"),
        (['basic realm="x"'], "Basic"),
    ],
)
def test_the_safer_login_is_chosen(challenges: list[str], word: str) -> None:
    login = login_for(challenges, MUFASA)
    assert login is not None
    assert login.header("GET", "/").startswith(word + " ")


@pytest.mark.parametrize("challenges", [[], ["Negotiate"], ["Digest"], [""]])
def test_what_cannot_be_answered_is_not(challenges: list[str]) -> None:
    assert login_for(challenges, MUFASA) is None
