"""A headless Chromium, as Debian packages it, driven by Selenium; and what must be true of a page in it.

Nothing is downloaded: browser and driver are taken from where the packages `chromium` and `chromium-driver` put them. Where they
are missing, tests are skipped and say so, unless CI_REQUIRES_BROWSER is set.
"""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.common.exceptions import JavascriptException, StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-features=BackForwardCache",
    "--hide-scrollbars",
)
WITHIN = 30.0
"""Seconds: no figure, but when to give up on a busy machine."""
LOOK_EVERY = 0.05
"""Seconds between two looks: without a pause they take the processor from the page that is waited for."""


class Chromium:
    """One browser with one page."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self._requested: list[str] = []
        self._complaints: list[str] = []

    # --- looking -------------------------------------------------------------------------------------------------------

    def open(self, url: str) -> None:
        """Go there."""
        self.driver.get(url)

    def size(self, width: int, height: int, *, dark: bool = False, scale: float = 1.0) -> None:
        """The viewport, in CSS pixels, and the theme that the system asks for."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})

    def run(self, script: str, *arguments: object) -> Any:
        """What a function body returns in the page."""
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> WebElement:
        """The one element that a CSS selector means, once it is there."""
        self.until(lambda: self.count(selector) > 0, f"no {selector}")
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def count(self, selector: str) -> int:
        """How many elements a CSS selector means."""
        return int(self.run("return document.querySelectorAll(arguments[0]).length", selector))

    def text(self, selector: str) -> str:
        """What an element says; nothing if it is not there."""
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def style(self, selector: str, name: str) -> str:
        """A computed style of an element."""
        return str(self.run("return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]", selector, name))

    def type(self, selector: str, text: str) -> None:
        """Into a field, in place of what it says."""
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def click(self, selector: str) -> None:
        """On an element; on its successor, where the page has put it in anew between the look and the click."""

        def clicked() -> bool:
            self.find(selector).click()  # raises for an element that is gone, and has clicked nothing then
            return True

        self.until(clicked, f"{selector} stays")

    def press(self, *keys: str) -> None:
        """On whatever has the focus."""
        for key in keys:
            ActionChains(self.driver, duration=0).send_keys(key).perform()

    def until(self, what: Callable[[], object], message: str, within: float = WITHIN) -> float:
        """How long it takes until `what()` is true; fails after `within` seconds. Each look is a round trip to the browser."""
        began = time.monotonic()
        while True:
            try:
                if what():
                    return time.monotonic() - began
            except (JavascriptException, StaleElementReferenceException):
                pass  # the page was about to change
            if time.monotonic() - began > within:
                raise AssertionError(f"not within {within:g} s: {message}")
            time.sleep(LOOK_EVERY)

    def screenshot(self, path: Path) -> None:
        """What is in the viewport, as a PNG."""
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "optimizeForSpeed": False})
        path.write_bytes(base64.b64decode(taken["data"]))

    def metric(self, name: str) -> float:
        """One of the figures of `Performance.getMetrics`, such as `TaskDuration`: seconds of CPU that the page has taken."""
        metrics = self.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return float(next(each["value"] for each in metrics if each["name"] == name))

    # --- what must be true of it ---------------------------------------------------------------------------------------

    def complaints(self) -> list[str]:
        """What the console said that is an error or a warning."""
        said = self.driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium leaves it untyped
        self._complaints += [each["message"] for each in said if each["level"] in ("SEVERE", "WARNING")]
        return self._complaints

    def requested(self) -> list[str]:
        """The address of everything that the page asked for."""
        for entry in self.driver.get_log("performance"):  # type: ignore[no-untyped-call]  # selenium leaves it untyped
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self._requested.append(message["params"]["request"]["url"])
        return self._requested

    def strangers(self, url: str) -> list[str]:
        """What the page asked of anybody but the node at `url`."""
        return [each for each in self.requested() if urlsplit(each).netloc != urlsplit(url).netloc and not each.startswith("data:")]


def missing() -> str | None:
    """Why there can be no browser here; None if there can."""
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"{program} is not installed: apt-get install chromium chromium-driver"
    return None


def need_browser() -> None:
    """Skip the test if there is no browser, or fail it where one is required."""
    why = missing()
    if why is not None and os.environ.get("CI_REQUIRES_BROWSER"):
        pytest.fail(why)
    if why is not None:
        pytest.skip(why)


@contextmanager
def chromium() -> Iterator[Chromium]:
    """A browser that is gone, with all that it wrote, when the block ends."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        options.add_experimental_option("perfLoggingPrefs", {"enableNetwork": True, "enablePage": False})
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            driver.execute_cdp_cmd("Performance.enable", {})
            driver.set_script_timeout(60)
            yield Chromium(driver)
        finally:
            with suppress(WebDriverException):  # it may be gone already
                driver.quit()


def need_axe() -> str:
    """The source of axe-core, from the npm package, or skip the test."""
    npm = shutil.which("npm")
    folders = [Path(each) for each in os.environ.get("NODE_PATH", "").split(os.pathsep) if each]
    if npm is not None:
        found = subprocess.run([npm, "root", "--global"], capture_output=True, text=True, check=True, timeout=60)
        folders.append(Path(found.stdout.strip()))
    for folder in folders:
        source = folder / "axe-core" / "axe.min.js"
        if source.exists():
            return source.read_text()
    pytest.skip("needs the npm package axe-core: npm install --global axe-core")
