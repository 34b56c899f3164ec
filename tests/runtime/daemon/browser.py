"""A Chromium that shows the local page: for its tests, and for the pictures in docs/."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from runtime.daemon.pages import TOKEN
from runtime.mqtt.listener import DEADLINE_S
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,900",
)


class Browser:
    """A Chromium that shows the page."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def at(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def wait(self, condition: Callable[[], object], what: str) -> None:
        WebDriverWait(self.driver, DEADLINE_S, poll_frequency=0.05).until(lambda driver: condition(), what)

    def text(self, selector: str) -> str:
        return str(self.at(selector).text)

    def log_in(self, port: int, token: str = TOKEN) -> None:
        self.driver.get(f"http://127.0.0.1:{port}/")
        self.wait(lambda: self.at("#login").is_displayed(), "the login")
        self.at("#token").send_keys(token)
        self.at("#login button").click()

    def ready(self, port: int) -> None:
        self.log_in(port)
        self.wait(
            lambda: self.driver.execute_script("return document.getElementById('picture').naturalWidth > 0"), "it"
        )

    def click_corners(self, corners: list[tuple[float, float]]) -> None:
        """Click into the picture at fractions of it, and on the first corner again."""
        overlay = self.at("#overlay")
        width, height = overlay.size["width"], overlay.size["height"]
        for x, y in [*corners, corners[0]]:
            action = ActionChains(self.driver, duration=0)
            action.move_to_element_with_offset(overlay, (x - 0.5) * width, (y - 0.5) * height).click().perform()

    def brightest_masked(self) -> int:
        """Of what is seen of the picture under `MASK`, beside its label; -1 while there is no picture."""
        pixels = np.asarray(Image.open(io.BytesIO(self.at("#picture").screenshot_as_png)).convert("L"))
        masked = pixels[20 : pixels.shape[0] // 2 - 20, 60 : pixels.shape[1] // 2 - 20]
        return int(masked.max()) if masked.size else -1

    def messages(self) -> list[str]:
        """What the console has of errors, but for answers with a status that is one."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")  # type: ignore[no-untyped-call]
            if "Failed to load resource" not in entry["message"] and "ERR_" not in entry["message"]
        ]


@contextmanager
def running_chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """Chromium with its files in `profile`, without a window."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()
