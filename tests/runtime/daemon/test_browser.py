"""Every action of the page in a real Chromium, against a real daemon with a broker, a clip and a fake model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from moedge_runtime.config import load_config
from moedge_runtime.mqtt.address import BrokerAddress
from runtime.daemon.browser import CHROMIUM, DRIVER, Browser, running_chromium
from runtime.daemon.pages import LIVE, Site, site
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="the Debian packages chromium and chromium-driver are not installed"
)

HOLD_PICTURES = """
const proceed = nextPicture;
nextPicture = () => {};
window.release = () => { nextPicture = proceed; nextPicture(); };
"""
"""No picture comes until `release` is called."""

COUNT_TIMERS = """
const waiting = new Map(), [set, clear] = [window.setTimeout, window.clearTimeout];
window.setTimeout = (action, delay) => {
  const timer = set(() => { waiting.delete(timer); action(); }, delay);
  waiting.set(timer, action.name);
  return timer;
};
window.clearTimeout = (timer) => { waiting.delete(timer); clear(timer); };
window.waiting = (name) => [...waiting.values()].filter((other) => other === name).length;
"""
"""`waiting(NAME)` is how many timers wait for a function of that name."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerAddress]:
    from runtime.mqtt.brokers import running_mosquitto

    yield from running_mosquitto(tmp_path_factory.mktemp("mosquitto"))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with running_chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def browser(chromium: webdriver.Chrome) -> Iterator[Browser]:
    chromium.delete_all_cookies()
    shown = Browser(chromium)
    shown.messages()
    yield shown
    assert shown.messages() == [], "no script failed and the content security policy was not touched"
    chromium.get("about:blank")


@contextmanager
def shown(place: Path, bundle: Path, broker: BrokerAddress, browser: Browser, **options: bool) -> Iterator[Site]:
    with site(place, bundle, broker.port, **options) as running:
        browser.ready(running.web)
        yield running


def test_a_wrong_token_opens_nothing_the_right_one_does_and_log_out_closes_it(
    place: Path, bundle: Path, broker: BrokerAddress, browser: Browser
) -> None:
    with site(place, bundle, broker.port) as running:
        browser.log_in(running.web, "this is not the token")
        browser.wait(lambda: "not the token" in browser.text("#login-error"), "the error")
        assert not browser.at("#page").is_displayed()
        browser.log_in(running.web)
        browser.wait(lambda: browser.at("#page").is_displayed(), "the page")
        cookie = browser.driver.get_cookie("moedge_session")
        assert cookie is not None and cookie["httpOnly"] and cookie["sameSite"] == "Strict"
        assert browser.driver.execute_script("return document.cookie") == ""
        browser.driver.refresh()
        browser.wait(lambda: browser.at("#page").is_displayed(), "the page after it was loaded again")
        browser.at("#logout").click()
        browser.wait(lambda: browser.at("#login").is_displayed(), "the login")
        browser.driver.refresh()
        browser.wait(lambda: browser.at("#login").is_displayed(), "the login")


def test_status_picture_zones_masks_and_answers_are_shown_and_nothing_is_loaded_from_elsewhere(
    place: Path, bundle: Path, broker: BrokerAddress, browser: Browser
) -> None:
    with shown(place, bundle, broker, browser) as running:
        browser.wait(lambda: "broker connected" in browser.text("#facts"), "the status")
        assert browser.text("#device") == "d"
        browser.wait(lambda: "panel: online" in browser.text("#cameras"), "the camera")
        assert "frames:" in browser.text("#camera-facts")
        browser.wait(lambda: "fake answer: frame" in browser.text("#answers"), "an answer")
        assert browser.at("#overlay polygon.mask").get_attribute("points") == "0,0 0.5,0 0.5,0.5 0,0.5"
        assert browser.at("#overlay polygon.zone").get_attribute("data-zone") == "dial"
        assert {label.text for label in browser.driver.find_elements(By.CSS_SELECTOR, "#frame .name")} == {
            "dial",
            "mask 1",
        }
        first = browser.at("#picture").get_attribute("src")
        browser.wait(lambda: browser.at("#picture").get_attribute("src") != first, "a newer picture")
        assert 0 <= browser.brightest_masked() < 40, "masked"
        names = browser.driver.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
        assert names and all(name.startswith(f"http://127.0.0.1:{running.web}/") for name in names)


def test_a_question_is_tried(place: Path, bundle: Path, broker: BrokerAddress, browser: Browser) -> None:
    with shown(place, bundle, broker, browser) as running:
        browser.at("#question").send_keys("What does <b>it</b> show?")
        browser.at("#ask button").click()
        browser.wait(lambda: "fake answer: frame" in browser.text("#reply"), "the answer")
        assert "What does <b>it</b> show?" in {text for text, _ in running.answerer.asked}
        browser.at("#question").clear()
        browser.at("#question").send_keys("FAIL")
        browser.at("#ask button").click()
        browser.wait(lambda: "fake refuses" in browser.text("#reply"), "the error")


def test_another_camera_is_chosen_and_a_drawing_does_not_go_with_it(
    place: Path, bundle: Path, broker: BrokerAddress, browser: Browser
) -> None:
    with site(place, bundle, broker.port, cameras={**LIVE, "yard": {**LIVE["panel"], "masks": []}}) as running:
        browser.ready(running.web)
        browser.at("#draw-mask").click()
        browser.click_corners([(0.2, 0.2), (0.9, 0.25), (0.8, 0.9)])
        assert browser.at("#apply").is_enabled()
        browser.driver.execute_script(HOLD_PICTURES)
        browser.at('#cameras button[data-camera="yard"]').click()
        assert browser.at("#picture").get_attribute("src") is None, "that of the other camera is gone at once"
        assert browser.at('#cameras button[aria-current="true"]').text == "yard: online"
        assert not browser.at("#apply").is_enabled() and browser.at("#yaml").get_property("value") == ""
        assert not browser.driver.find_elements(By.CSS_SELECTOR, "#overlay polygon.mask, #masks button")
        browser.driver.execute_script("window.release()")
        browser.wait(lambda: browser.brightest_masked() > 40, "the picture of the camera without masks")
        assert "/yard/" in str(browser.at("#picture").get_attribute("src"))
        browser.at("#question").send_keys("What is here?")
        browser.at("#ask button").click()
        browser.wait(lambda: "fake answer: frame" in browser.text("#reply"), "the answer")
        browser.wait(lambda: "yard/request" in browser.text("#answers"), "it is about this camera")


def test_a_page_that_is_opened_while_the_model_loads_comes_alive_by_itself(
    place: Path, bundle: Path, broker: BrokerAddress, browser: Browser
) -> None:
    loads = threading.Event()
    with site(place, bundle, broker.port, loads=loads) as running:
        browser.log_in(running.web)
        browser.wait(lambda: "starts or reloads" in browser.text("#trouble"), "why there is nothing to see")
        loads.set()
        browser.wait(lambda: browser.text("#trouble") == "", "the status")
        browser.wait(lambda: browser.brightest_masked() >= 0, "the picture")


def test_a_change_does_not_make_the_page_ask_more_often(
    place: Path, bundle: Path, broker: BrokerAddress, browser: Browser
) -> None:
    with shown(place, bundle, broker, browser):
        browser.driver.execute_script(COUNT_TIMERS)
        for corner in (0.7, 0.8, 0.9):
            browser.at("#draw-mask").click()
            browser.click_corners([(0.6, 0.6), (corner, 0.6), (corner, 0.9)])
            browser.at("#apply").click()
            browser.wait(lambda: browser.text("#draw-result") == "Applied.", "the change")
        browser.wait(lambda: browser.driver.execute_script("return window.waiting('refresh')") == 1, "the one timer")


def test_a_mask_is_drawn_copied_and_applied(place: Path, bundle: Path, broker: BrokerAddress, browser: Browser) -> None:
    with shown(place, bundle, broker, browser) as running:
        browser.at("#draw-mask").click()
        browser.click_corners([(0.2, 0.2), (0.9, 0.25), (0.8, 0.9)])
        text = browser.at("#yaml").get_property("value")
        assert isinstance(text, str) and text.startswith("cameras:\n  panel:\n    masks: [[[0.")
        browser.at("#copy").click()
        browser.wait(lambda: browser.text("#draw-result") == "Copied.", "the copy")
        browser.at("#apply").click()
        browser.wait(lambda: browser.text("#draw-result") == "Applied.", "the change")
        masks = load_config(running.path).cameras["panel"].masks
        assert np.abs(np.array(masks[1]) - [(0.2, 0.2), (0.9, 0.25), (0.8, 0.9)]).max() < 0.01
        browser.wait(
            lambda: len(browser.driver.find_elements(By.CSS_SELECTOR, "#overlay polygon.mask")) == 2, "its outline"
        )


def test_a_mask_is_removed_after_a_warning(place: Path, bundle: Path, broker: BrokerAddress, browser: Browser) -> None:
    with shown(place, bundle, broker, browser) as running:
        browser.wait(lambda: browser.text("#masks") == "Remove mask 1 …", "the mask")
        browser.at("#masks button").click()
        assert "can be seen from the next frame on" in browser.text("#remove-warning")
        assert browser.at("#overlay polygon.going").get_attribute("points") == "0,0 0.5,0 0.5,0.5 0,0.5"
        browser.at("#remove-keep").click()
        assert not browser.at("#removing").is_displayed()
        assert len(load_config(running.path).cameras["panel"].masks) == 1, "it was kept"
        browser.at("#masks button").click()
        browser.at("#remove-confirm").click()
        browser.wait(lambda: browser.text("#remove-result") == "Removed.", "the change")
        assert load_config(running.path).cameras["panel"].masks == ()
        browser.wait(
            lambda: not browser.driver.find_elements(By.CSS_SELECTOR, "#overlay polygon.mask, #masks button"), "it"
        )
        assert not browser.at("#removing").is_displayed()

        browser.wait(lambda: browser.brightest_masked() > 40, "what was under the mask")


def test_a_camera_is_paused_and_goes_on(place: Path, bundle: Path, broker: BrokerAddress, browser: Browser) -> None:
    with shown(place, bundle, broker, browser):
        assert browser.text("#pause") == "Pause panel"
        browser.at("#pause").click()
        browser.wait(lambda: "panel: disabled" in browser.text("#cameras"), "its state")
        assert browser.text("#pause") == "Let panel go on"
        assert browser.at("#frame.paused") and browser.at("#picture").get_attribute("src") is None
        browser.at("#pause").click()
        browser.wait(lambda: "panel: online" in browser.text("#cameras"), "its state")
        browser.wait(
            lambda: browser.driver.execute_script("return document.getElementById('picture').naturalWidth > 0"), "it"
        )
        assert browser.text("#pause") == "Pause panel"


def test_a_zone_is_drawn_with_undo_and_named(
    place: Path, bundle: Path, broker: BrokerAddress, browser: Browser
) -> None:
    with shown(place, bundle, broker, browser) as running:
        browser.at("#draw-zone").click()
        browser.click_corners([(0.6, 0.6), (0.9, 0.6), (0.9, 0.9)])
        browser.at("#undo").click()
        assert browser.at("#yaml").get_property("value") == "", "open again"
        overlay = browser.at("#overlay")
        ActionChains(browser.driver, duration=0).move_to_element_with_offset(
            overlay, 0.1 * overlay.size["width"], 0.1 * overlay.size["height"]
        ).click().perform()
        assert not browser.at("#apply").is_enabled(), "it has no name"
        browser.at("#zone-name").send_keys("door")
        browser.at("#apply").click()
        browser.wait(lambda: browser.text("#draw-result") == "Applied.", "the change")
        assert set(load_config(running.path).cameras["panel"].zones) == {"dial", "door"}
        browser.wait(
            lambda: "door" in {label.text for label in browser.driver.find_elements(By.CSS_SELECTOR, "#frame .name")},
            "it",
        )


def test_without_leave_a_polygon_can_be_copied_only(
    place: Path, bundle: Path, broker: BrokerAddress, browser: Browser
) -> None:
    with shown(place, bundle, broker, browser, allow=False):
        browser.at("#draw-mask").click()
        browser.click_corners([(0.2, 0.2), (0.9, 0.25), (0.8, 0.9)])
        assert browser.at("#copy").is_enabled()
        assert not browser.at("#apply").is_enabled()
        assert "allow_changes" in str(browser.at("#apply").get_attribute("title"))
        assert not browser.at("#pause").is_enabled()
        assert "allow_changes" in str(browser.at("#pause").get_attribute("title"))
        assert not browser.at("#masks button").is_enabled()
        assert "allow_changes" in str(browser.at("#masks button").get_attribute("title"))


def test_the_page_says_so_when_the_device_is_away(
    place: Path, bundle: Path, broker: BrokerAddress, browser: Browser
) -> None:
    with shown(place, bundle, broker, browser):
        pass
    browser.wait(lambda: "does not answer" in browser.text("#trouble"), "that it is away")
