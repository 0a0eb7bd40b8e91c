"""The page with a timer: tabs, a steady pace, pulses of the right length, a stream that is lost or given back."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator
from itertools import pairwise

import pytest

from service.app import create_app
from service.bundles.served import Served
from service.bundles.streams import StreamLimits, Streams
from tests.service.fake_pipeline import FakePipeline
from tests.timers import write_timer_bundle

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from tests.service import browser as chromium
from tests.service.test_service_page import luminance

pytestmark = chromium.MARKS

SPY = """
  const ask = window.fetch;
  window.sent = [];
  window.delay = arguments[0];
  window.fetch = async (url, request) => {
    const one = { url, method: request?.method, body: request?.body ?? null, begun: performance.now(), ended: null };
    window.sent.push(one);
    // What is sent while the page goes must not wait: it would never be sent.
    if (window.delay && request?.method !== "DELETE") await new Promise((done) => setTimeout(done, window.delay));
    const answer = await ask(url, request);
    one.ended = performance.now();
    return answer;
  };
"""


class Page(chromium.Page):
    """The page with a timer in it."""

    def set_duration(self, tenths: int) -> None:
        slider = self.find("#duration")
        slider.send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * (tenths - 1))
        assert slider.get_attribute("value") == str(tenths)

    def hurry(self) -> None:
        Select(self.find("#pace")).select_by_value("20")

    def pulses(self) -> list[list[str]]:
        """The listed pulses, the newest first: u2, expected, up, verdict."""
        script = (
            "return [...document.querySelectorAll('.pulses tbody tr')]"
            ".map((row) => [...row.cells].map((cell) => cell.textContent))"
        )
        return self.run(script)

    def attribute(self, selector: str, name: str) -> str:
        """At once: between finding an element and asking it, the plot is drawn anew."""
        return self.run("return document.querySelector(arguments[0]).getAttribute(arguments[1])", selector, name)

    def steps(self) -> int:
        return int(self.attribute(".timeline", "data-steps"))

    def drawn(self) -> list[bool]:
        """For each drawn step whether its answer lies above the dotted line."""
        level = float(self.attribute(".timeline .threshold", "y1"))
        path = self.attribute(".timeline .trace.answer", "d")
        return [float(height) < level for height in re.findall(r"[ML][\d.]+ ([\d.]+)", path)]

    def spy(self, delay: int = 0) -> None:
        self.run(SPY, delay)

    def sent(self) -> list[list[float]]:
        """u1 and u2 of each step that was sent since `spy`."""
        script = (
            "return window.sent.filter((one) => one.body && one.body.includes('steps'))"
            ".flatMap((one) => JSON.parse(one.body).steps)"
        )
        return self.run(script)

    def rest(self, milliseconds: int) -> None:
        self.run(f"return new Promise((done) => setTimeout(done, {milliseconds}))")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, Served]]]:
    folder = tmp_path_factory.mktemp("bundles")
    right, wrong = write_timer_bundle(folder / "right"), write_timer_bundle(folder / "wrong", name="late", late=1)
    app = create_app([right, wrong, FakePipeline()], threads=1, streams=StreamLimits(number=3))
    with chromium.serving(app) as url:
        yield url, app.extensions["edgedl"]


@pytest.fixture
def page(browser: webdriver.Chrome, service: tuple[str, dict[str, Served]]) -> Iterator[Page]:
    streams = service[1]["timer"].streams
    assert streams is not None
    with chromium.opened(browser, service[0], Page) as page:
        yield page
        browser.get("about:blank")
        try:
            page.wait(lambda: len(streams) == 0, 3)  # each test gives its stream back
        finally:
            streams._open.clear()


@pytest.fixture
def streams(service: tuple[str, dict[str, Served]]) -> Streams:
    found = service[1]["timer"].streams
    assert found is not None
    return found


def test_a_pulse_has_the_length_that_was_chosen(page: Page) -> None:
    assert page.find("#work-title").text == "A timer"
    assert not page.find("#stage").is_displayed(), "there is no picture to choose"
    page.hurry()
    page.set_duration(3)
    assert page.find("output").text == "0.3, 3 steps"
    page.find("#pulse").click()  # the first one opens the stream and runs
    page.wait(lambda: page.pulses() and page.pulses()[0][3] != "running")
    assert page.pulses() == [["0.3", "3 steps", "3", "exact"]]
    page.set_duration(7)
    page.find("#duration").send_keys("1")  # the key
    page.wait(lambda: len(page.pulses()) == 2 and page.pulses()[0][3] != "running")
    assert page.pulses()[0] == ["0.7", "7 steps", "7", "exact"]
    page.find("#run").click()
    page.wait(lambda: page.find("#run").text == "Run")
    page.rest(200)

    drawn = page.drawn()
    assert len(drawn) == page.steps() >= 13
    lengths = [len(run) for run in "".join("#" if up else " " for up in drawn).split()]
    assert lengths == [3, 7]
    assert drawn[:3] == [True] * 3
    width = float(page.find(".timeline .threshold").get_attribute("x2")) - 46
    targets = [float(block.get_attribute("width")) / width * 120 for block in page.all(".timeline > rect.wanted")]
    assert targets == pytest.approx([3, 7], abs=0.05), "in steps"
    assert len(page.all(".timeline circle.u1")) == 2
    assert page.find("#spoken").get_attribute("textContent") == "A pulse of 7 steps was exact."
    assert "2 of 2 exact" in page.find("#answer").text


def test_a_timer_that_is_late_is_told(page: Page) -> None:
    page.choose("late")
    page.hurry()
    page.set_duration(2)
    page.find("#pulse").click()
    page.wait(lambda: page.pulses() and page.pulses()[0][3] != "running")
    page.rest(150)
    assert page.pulses() == [["0.2", "2 steps", "3", "wrong"]]
    assert "0 of 1 exact" in page.find("#answer").text


def test_a_pulse_that_the_next_one_cuts_short(page: Page) -> None:
    page.set_duration(9)
    for press in ("#pulse", "#run"):  # one step at a time from here
        page.find(press).click()
    page.wait(page.steps)
    page.find("#pulse").click()
    page.find("#one").click()
    page.wait(lambda: len(page.pulses()) == 2)
    assert [row[3] for row in page.pulses()] == ["running", "cut short"]


def test_paused_it_goes_step_by_step(page: Page) -> None:
    page.spy()
    for count in range(1, 4):
        page.find("#one").click()
        page.wait(lambda count=count: page.steps() == count)
    page.set_duration(2)
    assert page.sent() == [[0, 0.5]] * 3
    page.find("#one").click()
    page.wait(lambda: page.steps() == 4)
    assert page.sent()[-1] == [0, 0.5], "u2 stays what it was until the next start, as in training"
    page.find("#pulse").click()
    page.rest(250)
    assert page.steps() == 4, "paused, a press waits for the next step"
    for count in (5, 6, 7):
        page.find("#one").click()
        page.wait(lambda count=count: page.steps() == count)
    assert page.sent()[4:] == [[1, 0.2], [0, 0.2], [0, 0.2]]
    assert page.drawn() == [False] * 4 + [True, True, False]
    assert page.pulses() == [["0.2", "2 steps", "2", "exact"]]


@pytest.mark.parametrize("delay", [0, 240], ids=["fast", "slow"])
def test_the_pace_is_kept_and_requests_never_overlap(page: Page, delay: int) -> None:
    page.spy(delay)
    # All on the page's own clock: the driver's clicks may come late.
    script = """
      const rest = (time) => new Promise((done) => setTimeout(done, time));
      document.getElementById("run").click();
      await rest(1500);
      document.getElementById("run").click();
      const paused = performance.now();
      await rest(900);
      return [paused, window.sent];
    """
    paused, sent = page.run(f"return (async () => {{ {script} }})()")
    begun, ended = [one["begun"] for one in sent], [one["ended"] for one in sent]
    assert max(begun) <= paused, "then nothing is asked any more"
    assert all(before <= after for before, after in zip(ended, begun[1:], strict=False)), "one after the other"
    # The first one opens the stream and the second follows at once; the pace counts from the first.
    spaces = [after - before for before, after in pairwise(begun[2:])]
    assert spaces
    assert min(spaces) >= max(100, delay) - 5
    assert delay or statistics.median(spaces) < 300, "and not much slower than asked for"


def test_a_lost_stream_is_said_and_another_one_opened(page: Page, streams: Streams) -> None:
    page.hurry()
    page.find("#pulse").click()
    page.wait(lambda: page.steps() >= 2)
    streams.close(next(iter(streams._open)))
    page.wait(lambda: page.find("#lost").is_displayed())
    assert page.find("#lost strong").text == "The stream is lost"
    assert "Open a new one" in page.find("#lost p").text
    assert page.find("#lost").get_attribute("role") == "alert"
    assert not page.find("#run").is_enabled()
    before = page.steps()
    page.find("#renew").click()
    page.wait(lambda: page.steps() >= before + 2)
    assert not page.find("#lost").is_displayed()
    assert len(streams) == 1
    assert len(page.all(".timeline .began")) == 1, "where the new one begins"
    assert len(re.findall("M", page.attribute(".timeline .trace.answer", "d"))) == 2
    assert page.run("return document.activeElement.id") == "run"
    assert page.pulses()[0][3] in ("cut short", "exact")


def test_too_many_streams_are_said_and_tried_again(page: Page, streams: Streams) -> None:
    names = [streams.open() for _ in range(3)]
    page.find("#run").click()
    page.wait(lambda: page.find("#lost").is_displayed())
    assert page.find("#lost p").text.startswith("As many streams are open as this service allows, 3")
    assert page.steps() == 0
    for name in names:
        streams.close(name)
    page.find("#renew").click()
    page.wait(lambda: page.steps() >= 2)


def test_a_server_that_is_gone(page: Page, streams: Streams) -> None:
    page.find("#run").click()
    page.wait(page.steps)
    page.run("window.kept = window.fetch; window.fetch = () => Promise.reject(new TypeError('Failed to fetch'))")
    page.wait(lambda: page.find("#lost").is_displayed())
    assert page.find("#lost strong").text == "The server cannot be reached"
    page.run("window.fetch = window.kept")
    before = page.steps()
    page.find("#renew").click()
    page.wait(lambda: page.steps() > before)
    lost, _ = list(streams._open)  # the old one could not be given back; it expires
    streams.close(lost)


@pytest.mark.parametrize("how", ["tab", "page"])
def test_the_stream_is_given_back_when_one_leaves(page: Page, streams: Streams, how: str) -> None:
    page.find("#run").click()
    page.wait(page.steps)
    assert len(streams) == 1
    if how == "tab":
        page.choose("age")
        page.rest(300)
        assert not page.find("#work").is_displayed()
    else:
        page.driver.get("about:blank")
    page.wait(lambda: len(streams) == 0)


def test_a_stream_that_opens_too_late_is_given_back(page: Page, streams: Streams) -> None:
    page.spy(300)
    page.run("document.getElementById('run').click(); document.getElementById('tab-age').click()")
    page.rest(500)
    page.wait(lambda: len(streams) == 0)
    assert [one["method"] for one in page.run("return window.sent")] == ["POST", "DELETE"]


def test_tabs_switch_by_click_keyboard_and_address(page: Page) -> None:
    tabs = page.all("[role=tab]")
    assert [tab.text for tab in tabs] == ["timer", "late", "age"]
    page.choose("age")
    assert [tab.get_attribute("aria-selected") for tab in page.all("[role=tab]")] == ["false", "false", "true"]
    assert page.find("#title").text == "How old do they look?"
    assert page.find("#place").get_attribute("aria-labelledby") == "tab-age"
    assert page.driver.current_url.endswith("#/age")
    page.driver.refresh()
    page.wait(lambda: page.find("body").get_attribute("data-state") == "ready")
    assert page.find("#title").text == "How old do they look?", "the address remembers it"

    page.find("#tab-age").send_keys(Keys.ARROW_RIGHT)
    assert page.run("return document.activeElement.id") == "tab-timer", "around the end"
    assert page.find("#tab-age").get_attribute("aria-selected") == "true", "arrows only move"
    assert [tab.get_attribute("tabindex") for tab in page.all("[role=tab]")] == ["-1", "-1", "0"]
    page.find("#tab-timer").send_keys(Keys.ENTER)
    assert page.find("#work-title").text == "A timer"
    page.find("#tab-timer").send_keys(Keys.TAB)
    assert page.run("return document.activeElement.id") == "about-what", "the next stop after the tabs"
    page.find("#about-what").send_keys(Keys.TAB)
    assert page.run("return document.activeElement.id") == "pulse"
    page.run("location.hash = '#/age'")
    page.wait(lambda: page.find("#title").is_displayed())


def test_the_camera_stops_for_a_timer(page: Page) -> None:
    page.choose("age")
    page.find("#camera").click()
    page.wait(lambda: page.all(".target"))
    page.choose("timer")
    page.wait(lambda: page.find("#work").is_displayed())
    assert page.run("return document.getElementById('video').srcObject") is None
    assert page.all(".target") == []
    page.choose("age")
    assert page.find("#empty").is_displayed()


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_who_wants_less_motion_gets_pages_instead_of_a_moving_paper(page: Page, motion: str) -> None:
    page.open(motion=motion)
    script = """
      const { Timeline } = await import("./static/timeline.js");
      const plot = new Timeline({ window: 20, threshold: 0.25, target: true });
      document.getElementById("tool").replaceChildren(plot.element);
      const seen = [];
      for (let step = 0; step < 65; step += 1) {
        plot.add({ u1: 0, u2: 0.5, answer: step % 7 ? 0 : 0.5, target: 0, begins: step === 0 });
        const path = plot.drawing.querySelector(".trace.answer").getAttribute("d");
        seen.push([plot.count, path.match(/[ML]/g).length]);
      }
      return seen;
    """
    seen = page.run(f"return (async () => {{ {script} }})()")
    assert [count for count, _ in seen] == list(range(1, 66)), "also when old steps are forgotten"
    if motion == "reduce":
        assert [points for _, points in seen] == [*range(1, 21)] * 3 + [1, 2, 3, 4, 5]
    else:
        assert [points for _, points in seen] == [*range(1, 20)] + [20] * 46


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colours_of_the_plot_have_contrast(page: Page, scheme: str) -> None:
    page.open(scheme=scheme)
    ground = luminance(page.find(".card").value_of_css_property("background-color").replace("rgba", "rgb"))
    for lane in ("u1", "u2", "answer"):
        ink = luminance(page.find(f".timeline .title.{lane}").value_of_css_property("fill"))
        assert (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05) >= 4.5, lane


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_everything_pressable_has_a_name(page: Page, width: int) -> None:
    page.open(width=width, height=780)
    page.find("#pulse").click()
    page.wait(page.steps)
    assert page.run("return document.documentElement.scrollWidth") <= width
    plot, card = (page.find(part).rect for part in (".timeline", ".card.flush"))
    assert card["x"] < plot["x"]
    assert plot["x"] + plot["width"] < card["x"] + card["width"], "no part of it is cut off"
    for element in page.all("button, select, input, a, [role=img]"):
        if element.is_displayed():
            assert element.accessible_name, element.get_attribute("outerHTML")
