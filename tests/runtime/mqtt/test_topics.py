import pytest
from hypothesis import given
from hypothesis import strategies as st
from moedge_runtime.mqtt.message import Message
from moedge_runtime.mqtt.topics import Topics, answer_filter, check_base_topic, check_topic, watch_feature

TOPICS = Topics("site/moedge", "panel-01")


def test_the_tree() -> None:
    assert [TOPICS.status, TOPICS.info, TOPICS.health] == [
        "site/moedge/panel-01/status",
        "site/moedge/panel-01/info",
        "site/moedge/panel-01/health",
    ]
    assert TOPICS.camera_status("gate") == "site/moedge/panel-01/gate/status"
    assert TOPICS.answer("gate") == "site/moedge/panel-01/gate/answer"
    assert TOPICS.last_answer("gate") == "site/moedge/panel-01/gate/answer/last"
    assert TOPICS.requests == "site/moedge/panel-01/request/+"
    assert TOPICS.response("ask") == "site/moedge/panel-01/response/ask"
    assert answer_filter("moedge") == "moedge/+/+/answer"


@pytest.mark.parametrize("topic", ["", "a/+/b", "a/#", "a\0b", "a" * 65536])
def test_what_no_message_may_be_published_to(topic: str) -> None:
    with pytest.raises(ValueError, match="Nothing can be published to the topic"):
        Message(topic, b"")


def test_a_wildcard_is_named_in_the_refusal() -> None:
    with pytest.raises(ValueError) as caught:
        check_topic("a/+")
    assert str(caught.value) == (
        "Nothing can be published to the topic 'a/+': + and # are wildcards and belong into subscriptions only."
    )


@pytest.mark.parametrize("base", ["", "/a", "a/", "$SYS", "a/+", "#"])
def test_what_no_base_topic_may_be(base: str) -> None:
    with pytest.raises(ValueError, match="a base topic has levels"):
        check_base_topic(base)


def test_the_verb_of_a_request() -> None:
    assert TOPICS.verb("site/moedge/panel-01/request/ask") == "ask"
    for topic in ("site/moedge/panel-01/request/", "site/moedge/panel-01/request/a/b", "site/moedge/x/request/ask"):
        assert TOPICS.verb(topic) is None


def test_what_is_switched_by_a_topic() -> None:
    root = "site/moedge/panel-01"
    assert TOPICS.feature_set("gate", "enabled") == f"{root}/gate/enabled/set"
    assert TOPICS.feature_state("gate", watch_feature("open")) == f"{root}/gate/watch/open/state"
    assert TOPICS.feature_sets == (f"{root}/+/+/set", f"{root}/+/watch/+/set", f"{root}/+/zone/+/set")
    assert TOPICS.switch(f"{root}/gate/motion/set") == ("gate", "motion")
    assert TOPICS.switch(f"{root}/gate/watch/open/set") == ("gate", "watch/open")
    assert TOPICS.switch(f"{root}/gate/zone/door/set") == ("gate", "zone/door")
    for topic in (f"{root}/gate/set", f"{root}/gate/a/b/set", f"{root}/gate/motion/state", f"{root}/request/ask"):
        assert TOPICS.switch(topic) is None
    assert TOPICS.switch("site/moedge/x/gate/motion/set") is None


def test_a_response_may_not_pretend_to_be_a_statement_of_the_device() -> None:
    assert TOPICS.may_respond_on("me/inbox")
    assert TOPICS.may_respond_on("site/moedge/panel-01/response/mine")
    assert TOPICS.may_respond_on("site/moedge/panel-012/x")
    for topic in ("site/moedge/panel-01/status", "site/moedge/panel-01", "site/moedge/panel-01/request/ask", "a/#", ""):
        assert not TOPICS.may_respond_on(topic)


@given(st.text())
def test_no_topic_with_a_wildcard_passes(topic: str) -> None:
    try:
        check_topic(topic)
    except ValueError:
        return
    assert topic
    assert not set("+#\0") & set(topic)
