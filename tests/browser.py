"""Chromium without a screen, and what a test wants to know of a page in it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--lang=en-GB",
)

# The contrast of each text with what is behind it (WCAG 2.2, 1.4.3), lowest first.
_CONTRASTS = """
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
const luminance = ([r, g, b]) => {
  const linear = [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};
const behind = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const colour = channels(getComputedStyle(one).backgroundColor);
    if ((colour[3] ?? 1) === 1) return colour;
  }
  return [255, 255, 255];
};
const shown = (element) => element.checkVisibility({ checkOpacity: true })
  && !element.closest(".hidden, .skip, :disabled");
const texts = [...document.querySelectorAll("body *")].filter((element) => shown(element)
  && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
const fields = [...document.querySelectorAll("input, textarea, select")].filter(shown);
const rows = [
  ...texts.map((one) => [one, getComputedStyle(one).color]),
  ...fields.map((one) => [one, getComputedStyle(one).color]),
  ...fields.map((one) => [one, getComputedStyle(one, "::placeholder").color]),
];
return rows.map(([element, colour]) => {
  const [one, other] = [channels(colour), behind(element)].map(luminance);
  const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  return [ratio, `${element.localName}#${element.id}.${element.className}`, colour];
}).sort((one, other) => one[0] - other[0]);
"""


class Browser:
    """One tab. Waits for what it is asked to find."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        service = webdriver.ChromeService(str(shutil.which("chromedriver")))
        self.driver = webdriver.Chrome(options, service)

    def close(self) -> None:
        self.driver.quit()

    def open(self, url: str, width: int = 1280, *, dark: bool = False) -> None:
        """A fresh page: nothing remembered, nothing logged."""
        self._cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._cdp("Emulation.setEmulatedMedia", features=[scheme])
        self.driver.get(url)
        self.run("localStorage.clear(); sessionStorage.clear();")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> WebElement:
        """The first element of a CSS selector, once there is one."""
        self.until(lambda: self.all(selector))
        return self.all(selector)[0]

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.all(selector)]

    def press(self, *keys: str) -> None:
        """Keys, held together, to whatever has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def focused(self) -> str:
        return str(self.run("return document.activeElement.id"))

    def until(self, holds: Callable[[], Any], within_s: float = 20) -> None:
        deadline = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < deadline, "it never came to that"
            time.sleep(0.02)

    def requested(self) -> set[str]:
        """The addresses that the page has asked for since it was opened."""
        entries = (json.loads(one["message"]) for one in self.driver.get_log("performance"))
        sent = [one["message"] for one in entries]
        return {
            one["params"]["request"]["url"]
            for one in sent
            if one["method"] == "Network.requestWillBeSent"
        }

    def complaints(self) -> list[str]:
        """What the console has against the page: errors, refused policies, missing files."""
        return [one["message"] for one in self.driver.get_log("browser")]

    def contrasts(self) -> list[tuple[float, str, str]]:
        """The contrast of each text that is shown, the element and its colour; lowest first."""
        return [tuple(row) for row in self.run(_CONTRASTS)]

    def too_wide(self) -> bool:
        """Whether one has to scroll sideways."""
        root = "document.documentElement"
        return bool(self.run(f"return {root}.scrollWidth > {root}.clientWidth"))

    def _cdp(self, command: str, **parameters: Any) -> None:
        self.driver.execute_cdp_cmd(command, parameters)


ENTER, ESCAPE, TAB, CONTROL = Keys.ENTER, Keys.ESCAPE, Keys.TAB, Keys.CONTROL
