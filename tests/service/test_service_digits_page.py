"""The page with digits: a pad for mouse, finger, pen and keyboard, what is read in it, and what a net draws itself."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from service.app import create_app
from tests.digits import write_digits_bundle

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.service import browser as chromium

pytestmark = chromium.MARKS

Stroke = list[tuple[float, float]]
BAR: Stroke = [(0.5, 0.15), (0.5, 0.85)]
TURNS = [turn * math.pi / 8 for turn in range(17)]
RING: Stroke = [(0.5 + 0.25 * math.cos(turn), 0.5 + 0.36 * math.sin(turn)) for turn in TURNS]

SPY = """
  const ask = window.fetch;
  window.asked = [];
  window.fetch = async (url, request) => {
    const one = { url, begun: performance.now(), ended: null };
    window.asked.push(one);
    const answer = await ask(url, request);
    await new Promise((done) => setTimeout(done, arguments[0]));
    one.ended = performance.now();
    return answer;
  };
"""


class Page(chromium.Page):
    """The page with a pad in it."""

    def draw(self, stroke: Stroke) -> None:
        """With the mouse; shares of the pad's side."""
        pad = self.find("#pad")
        side = pad.size["width"]
        places = [(round((x - 0.5) * side), round((y - 0.5) * side)) for x, y in stroke]
        chain = ActionChains(self.driver, duration=10)
        chain.move_to_element_with_offset(pad, *places[0]).click_and_hold()
        for place in places[1:]:
            chain.move_to_element_with_offset(pad, *place)
        chain.release().perform()

    def point(self, kind: str, stroke: Stroke) -> None:
        """With a finger or a pen, as the browser's events."""
        script = """
          const [kind, stroke] = arguments;
          const pad = document.getElementById("pad");
          pad.setPointerCapture = () => {};
          const box = pad.getBoundingClientRect();
          stroke.forEach(([x, y], index) => {
            const more = { pointerId: 7, pointerType: kind, bubbles: true, isPrimary: true, button: index ? -1 : 0 };
            const place = { clientX: box.left + x * box.width, clientY: box.top + y * box.height };
            pad.dispatchEvent(new PointerEvent(index ? "pointermove" : "pointerdown", { ...more, ...place }));
          });
          pad.dispatchEvent(new PointerEvent("pointerup", { pointerId: 7, pointerType: kind, bubbles: true }));
        """
        self.run(script, kind, stroke)

    def answer(self) -> str:
        return self.find(".big b").get_attribute("textContent")

    def levels(self, selector: str) -> np.ndarray:
        """Red of a canvas, 0 … 255, [H, W]."""
        script = """
          const shown = document.querySelector(arguments[0]);
          const copy = new OffscreenCanvas(shown.width, shown.height); // reading the page's own one would slow it down
          copy.getContext("2d").drawImage(shown, 0, 0);
          const { data } = copy.getContext("2d").getImageData(0, 0, shown.width, shown.height);
          return [shown.height, shown.width, Array.from(data).filter((_, index) => index % 4 === 0)];
        """
        height, width, levels = self.run(script, selector)
        return np.array(levels).reshape(height, width)

    def ink(self) -> np.ndarray:
        """Darkness of the sheet, 0 … 255, [280, 280]."""
        return 255 - self.levels("#pad")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("bundles")
    bundles = [
        write_digits_bundle(folder / "digits.edge"),
        write_digits_bundle(folder / "reader.edge", draws=False, name="reader"),
    ]
    with chromium.serving(create_app(bundles, threads=1)) as url:
        yield url


@pytest.fixture
def page(browser: webdriver.Chrome, service: str) -> Iterator[Page]:
    with chromium.opened(browser, service, Page) as page:
        yield page


def test_what_is_drawn_is_read(page: Page) -> None:
    assert page.answer() == "–"
    page.draw(BAR)
    page.wait(lambda: page.answer() == "1")
    page.wait(lambda: page.find("#spoken").get_attribute("textContent") == "It reads 1, 90 %.")
    values = [item.text for item in page.all(".chances .value")]
    assert values == ["10 %", "90 %", *["0.0 %"] * 8]
    widths = page.run("return [...document.querySelectorAll('.chances .bar-of')].map((bar) => bar.style.width)")
    assert widths[:3] == ["10%", "90%", "0%"]
    assert len(page.all(".chances .best")) == 1

    dark = page.ink()
    assert dark[140, 140] > 200, "the middle of the bar"
    assert dark[140, 60] == dark[10, 140] == 0, "and nothing elsewhere"

    page.find("#clear").click()
    assert page.answer() == "–"
    assert page.ink().max() == 0
    page.draw(RING)
    page.wait(lambda: page.answer() == "0")
    assert page.find(".big span").text == "90 %"


@pytest.mark.parametrize("kind", ["touch", "pen"])
def test_a_finger_and_a_pen_draw_as_well(page: Page, kind: str) -> None:
    assert page.find("#pad").value_of_css_property("touch-action") == "none", (
        "the page does not scroll under the finger"
    )
    page.point(kind, BAR)
    page.wait(lambda: page.answer() == "1")


def test_it_is_drawn_and_wiped_by_keyboard(page: Page) -> None:
    pad = page.find("#pad")
    pad.send_keys(Keys.ARROW_DOWN)
    assert page.ink().max() == 0, "a lifted pen only moves"
    pad.send_keys(Keys.SPACE, *[Keys.ARROW_DOWN] * 9, Keys.SPACE)
    page.wait(lambda: page.answer() == "1")
    dark = page.ink()
    rows = np.flatnonzero(dark[:, 140] > 200)
    assert rows.min() == pytest.approx(84 - 18, abs=2)
    assert rows.max() == pytest.approx(84 + 9 * 14 + 18, abs=2)
    pad.send_keys(Keys.ARROW_RIGHT)
    assert np.array_equal(page.ink(), dark), "lifted again"
    pad.send_keys(Keys.TAB)
    assert page.run("return document.activeElement.id") == "clear", "the next stop"
    page.find("#clear").send_keys(Keys.ENTER)
    assert page.ink().max() == 0
    assert page.answer() == "–"


def test_it_is_asked_while_one_draws_and_never_twice_at_a_time(page: Page) -> None:
    page.run(SPY, 150)
    script = """
      const pad = document.getElementById("pad");
      pad.setPointerCapture = () => {};
      const box = pad.getBoundingClientRect();
      const event = (type, y) => pad.dispatchEvent(new PointerEvent(type,
        { pointerId: 3, bubbles: true, clientX: box.left + box.width / 2, clientY: box.top + y * box.height }));
      event("pointerdown", 0.2);
      for (let step = 0; step < 60; step += 1) {
        event("pointermove", 0.2 + step / 100);
        await new Promise((done) => setTimeout(done, 20));
      }
      const drawn = performance.now();
      event("pointerup", 0.8);
      return drawn;
    """
    drawn = page.run(f"return (async () => {{ {script} }})()")
    page.wait(lambda: page.run("return window.asked.at(-1).begun > arguments[0]", drawn), 5)
    page.wait(lambda: page.run("return window.asked.every((one) => one.ended !== null)"))
    page.run("return new Promise((done) => setTimeout(done, 400))")
    asked = page.run("return window.asked")
    assert sum(one["begun"] < drawn for one in asked) >= 2, "not only at the end"
    assert all(before["ended"] <= after["begun"] for before, after in pairwise(asked))
    assert min(after["begun"] - before["begun"] for before, after in pairwise(asked)) >= 260
    assert sum(one["begun"] > drawn for one in asked) <= 2, "once it rests, nothing is asked any more"


def test_an_answer_to_a_wiped_sheet_is_dropped(page: Page) -> None:
    page.run(SPY, 500)
    page.draw(BAR)
    page.wait(lambda: page.run("return window.asked.length"))
    page.find("#clear").click()
    page.wait(lambda: page.run("return window.asked.at(-1).ended !== null"))
    page.run("return new Promise((done) => setTimeout(done, 200))")
    assert page.answer() == "–"


def test_it_draws_where_the_bundle_can(page: Page) -> None:
    button = page.find(".choices button[aria-label='Draw a 7']")
    button.send_keys(Keys.ENTER)
    page.wait(lambda: page.find(".drawing").is_displayed())
    assert page.find(".drawing").get_attribute("aria-label") == "A 7, as the network draws it"
    assert page.levels(".drawing") == pytest.approx(255 * 0.3, abs=2)
    assert "A 7 from seed 0; the network reads" in page.find("#answer").text
    button.click()
    page.wait(lambda: "A 7 from seed 1;" in page.find("#answer").text)
    assert page.answer() == "–", "that is no answer to the sheet"
    page.choose("reader")
    assert page.all(".choices") == [], "a network without a way down draws nothing"


def test_what_goes_wrong_is_said_and_the_sheet_stays(page: Page) -> None:
    page.run("window.ask = window.fetch; window.fetch = () => Promise.reject(new TypeError('Failed to fetch'))")
    page.draw(BAR)
    page.wait(lambda: page.find("#message-title").text == "The server cannot be reached")
    assert page.ink().max() > 200
    page.find(".choices button").click()
    page.run("window.fetch = window.ask")
    page.draw(BAR)
    page.wait(lambda: page.answer() == "1")
    assert not page.find("#message").is_displayed()


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_everything_pressable_has_a_name(page: Page, width: int) -> None:
    page.open(width=width, height=780)
    page.point("touch", RING)
    page.wait(lambda: page.answer() == "0")
    assert page.run("return document.documentElement.scrollWidth") <= width
    for element in page.all("button, canvas[role], a, ol"):
        if element.is_displayed():
            assert element.accessible_name, element.get_attribute("outerHTML")


@pytest.mark.slow
def test_a_trained_network_reads_what_is_drawn(browser: webdriver.Chrome, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for command in (["train", "digits", "-o", "run"], ["export", "run", "-o", "digits.edge"]):
        call = [sys.executable, "-m", "edgedl", *command]
        subprocess.run(call, cwd=tmp_path, env=environment, check=True, capture_output=True)
    two = [(0.28, 0.33), (0.34, 0.2), (0.5, 0.15), (0.66, 0.2), (0.7, 0.34), (0.6, 0.5), (0.28, 0.85), (0.74, 0.85)]
    with (
        chromium.serving(create_app([tmp_path / "digits.edge"], threads=1)) as url,
        chromium.opened(browser, url, Page) as page,
    ):
        for digit, stroke in {"0": RING, "1": BAR, "2": two}.items():
            page.find("#clear").click()
            page.draw(stroke)
            page.wait(lambda digit=digit: page.answer() == digit)
