"""A real browser for the tests of the page: Chromium, driven by selenium, and the page in it."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from werkzeug.serving import make_server

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MARKS = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(not CHROMIUM or not CHROMEDRIVER, reason="Chromium and its driver are not on the PATH"),
]
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


class Page:
    """The page in a browser, with the few things that the tests do to it."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def open(
        self,
        width: int = 1280,
        height: int = 860,
        ratio: float = 1,
        scheme: str = "light",
        motion: str = "no-preference",
    ) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": ratio, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        wishes = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
        media = {"features": [{"name": name, "value": value} for name, value in wishes.items()]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        self.driver.get("about:blank")  # an address that differs in its fragment only would not load again
        self.driver.get(self.url)
        self.wait(lambda: self.find("body").get_attribute("data-state") == "ready")

    def wait(self, condition: Callable[[], Any], seconds: float = 30) -> Any:
        return WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(lambda _: condition())

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def choose(self, name: str) -> None:
        """The tab of a bundle."""
        self.find(f"#tab-{name}").click()

    def upload(self, path: Path) -> None:
        self.find("#file").send_keys(str(path))

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def sent_after_a_stop(self) -> int:
        """Requests after a camera is stopped while a picture is made that would be sent at once."""
        return self.run("""
          const [now, { prototype }] = [performance.now.bind(performance), HTMLCanvasElement];
          const { toBlob } = prototype;
          performance.now = () => now() + 1e6; // the next request is due
          return new Promise((done) => {
            let sent = 0;
            prototype.toBlob = function (...how) {
              window.fetch = () => ((sent += 1), Promise.reject(new TypeError("sent")));
              document.getElementById("live").click();
              setTimeout(() => toBlob.apply(this, how), 50);
              setTimeout(() => done(sent), 500);
            };
          });
        """)

    def overlay(self) -> np.ndarray:
        """The drawn boxes and labels: uint8 RGBA, [H, W, 4], in device pixels."""
        size = self.run("const c = document.getElementById('overlay'); return [c.height, c.width]")
        script = (
            "const c = document.getElementById('overlay');"
            "return Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)"
        )
        return np.array(self.run(script), np.uint8).reshape(*size, 4)


def start_browser(folder: Path, *more: str) -> webdriver.Chrome:
    """Chromium with a profile in this folder, and more flags than `FLAGS`."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, *more, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))


@contextmanager
def serving(app: Flask) -> Iterator[str]:
    """The application at an address of its own, in a thread."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def opened(browser: webdriver.Chrome, url: str, kind: type[Page] = Page) -> Iterator[Page]:
    """A freshly opened page; afterwards nothing may stand in the console and nothing may have left the origin."""
    browser.get_log("browser"), browser.get_log("performance")
    page = kind(browser, url)
    page.open()
    yield page
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = [
        event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
    ]
    # chrome: is the browser's own first tab.
    elsewhere = [found for found in requested if not found.startswith((url, "data:", "blob:", "about:", "chrome"))]
    assert elsewhere == [], elsewhere
    assert any(found.startswith(url) for found in requested), "requests are seen at all"
    # Chromium itself writes a line for each answer that is no success; those are what some tests are about.
    lines = [entry["message"] for entry in browser.get_log("browser")]
    complaints = [line for line in lines if "Failed to load resource" not in line]
    assert complaints == [], complaints
    browser.get("about:blank")  # what a page still draws would take a core from the tests after it
