from pathlib import Path

import pytest
from moedge_panel.demo import MARK, DemoError, expected_answers, make_directory, run_daemon, watching
from moedge_runtime.mqtt.broker import EmbeddedBroker
from moedge_runtime.mqtt.listening import free_port


def test_every_watch_is_answered_at_the_start_and_after_every_interval() -> None:
    assert expected_answers(120.0) == 40 + 20 + 20 + 10


def test_a_directory_that_no_demo_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DemoError) as caught:
        make_directory(tmp_path)
    assert str(caught.value) == (
        f"'{tmp_path}' exists and was not made by this demo (it has no {MARK}). Remove it, or choose another --out."
    )
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_directory_of_the_demo_is_made_anew(tmp_path: Path) -> None:
    for _ in range(2):
        make_directory(tmp_path / "a" / "b")
        assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == [MARK]
        (tmp_path / "a" / "b" / "answers.jsonl").touch()


def test_a_client_that_finds_no_broker_is_told_at_once(tmp_path: Path) -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    with pytest.raises(DemoError) as caught, watching(url, tmp_path / "answers.jsonl"):
        pass
    assert str(caught.value) == (
        f"`moedge watch` ended early, with code 1: moedge: Broker {url} cannot be reached: Connection refused. "
        "Check that it runs, its address and its port."
    )


def test_a_daemon_or_a_client_that_ends_early_ends_the_demo(tmp_path: Path) -> None:
    broker = EmbeddedBroker("127.0.0.1", 0)
    with watching(str(broker.start()), tmp_path / "answers.jsonl") as client:
        with pytest.raises(DemoError, match=r"^`moedge run` ended with code 2; its messages are above\.$"):
            run_daemon(tmp_path / "none.yaml", client)
        client.kill()
        client.wait()
        with pytest.raises(DemoError, match=r"^`moedge watch` ended early, with code -9: "):
            run_daemon(tmp_path / "none.yaml", client)
    broker.stop()
