"""Makes the pictures of docs/web.md anew: the demo's model and video, the real daemon and page, Chromium.

`make screenshots` runs it: python -m runtime.daemon.make_screenshots BUNDLE, from the root of the repository.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from moedge_runtime.mqtt.listening import free_port
from PIL import Image
from runtime.daemon.browser import Browser, running_chromium
from runtime.daemon.pages import TOKEN, wait_until
from runtime.web.raw import send
from selenium.webdriver.common.by import By

ROOT = Path(__file__).parents[3]
IMAGES = ROOT / "docs/images"
WIDTH, HEIGHT, HEIGHT_WITH_MASKS = 1185, 757, 1007
"""Of the pictures, in pixels."""
ANSWERS = 8
"""As many fill the list beside the picture."""


@contextmanager
def demo_daemon(place: Path, bundle: Path) -> Iterator[int]:
    """`moedge run` on the demo's video; gives the port of its page."""
    port = free_port()
    config = {
        "version": 1,
        "device": "gate-01",
        "model": {"bundle": str(bundle.resolve())},
        "mqtt": {"embedded": {"port": free_port()}},
        "metrics": False,
        "web": {"port": port, "token": TOKEN, "allow_changes": True},
        "cameras": {
            "panel": {
                "source": f"file:{ROOT / 'examples/panel/video/panel.mp4'}",
                "loop": True,
                "realtime": True,
                "masks": ["0,0,0.22,0,0.22,0.28,0,0.28", "0.88,0.86,1,0.86,1,1,0.88,1"],
                "zones": {"display": "0.3,0.1,0.9,0.1,0.9,0.4,0.3,0.4"},
            }
        },
        "watches": [
            {"name": "reading", "camera": "panel", "question": "What is the reading?", "interval": "2s"},
            {"name": "lamps", "camera": "panel", "question": "Which lamps are lit?", "interval": "4s"},
        ],
    }
    path = place / "moedge.yaml"
    path.write_text(yaml.safe_dump(config))
    daemon = subprocess.Popen([sys.executable, "-m", "moedge_runtime", "run", "--config", str(path)])
    try:
        wait_until(lambda: _answers(port))
        yield port
    finally:
        daemon.terminate()
        daemon.wait()


def _answers(port: int) -> bool:
    try:
        return send(port, "GET", "/").status == 200
    except OSError:
        return False


def make_screenshots(bundle: Path) -> None:
    """Write docs/images/web.png and web-remove.png."""
    with (
        tempfile.TemporaryDirectory() as place,
        demo_daemon(Path(place), bundle) as port,
        running_chromium(Path(place) / "chromium") as driver,
    ):
        browser = Browser(driver)
        _resize(browser, HEIGHT_WITH_MASKS)
        browser.ready(port)
        browser.at("#question").send_keys("Is the gauge above half?")
        browser.at("#ask button").click()
        browser.wait(lambda: browser.text("#reply") in ("yes", "no"), "the reply")
        browser.wait(lambda: len(driver.find_elements(By.CSS_SELECTOR, "#answers > *")) >= ANSWERS, "the answers")
        driver.find_elements(By.CSS_SELECTOR, "#masks button")[1].click()
        browser.wait(lambda: browser.at("#removing").is_displayed(), "the warning")
        _save(browser, "web-remove.png")
        browser.at("#remove-keep").click()
        _resize(browser, HEIGHT)
        browser.at("#draw-mask").click()
        browser.click_corners([(0.55, 0.65), (0.9, 0.61), (0.93, 0.9), (0.6, 0.92)])
        driver.execute_script("window.scrollTo(0, 0)")
        _save(browser, "web.png")


def _resize(browser: Browser, height: int) -> None:
    size = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})


def _save(browser: Browser, name: str) -> None:
    """With 256 colours, a third of the size."""
    picture = Image.open(io.BytesIO(browser.driver.get_screenshot_as_png())).convert("RGB")
    picture.quantize(256).save(IMAGES / name, optimize=True)


if __name__ == "__main__":
    make_screenshots(Path(sys.argv[1]))
