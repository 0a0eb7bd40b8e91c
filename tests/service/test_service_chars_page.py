"""The page with a bundle that writes: the text grows as it comes, Stop stops the server, and nothing wipes the text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from runtime.pipelines import load
from runtime.pipelines.chars import CharsPipeline
from service.app import create_app
from service.routes import text as module
from tests.chars import write_chars_bundle
from tests.service.fake_pipeline import FakePipeline

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from tests.service import browser as chromium

pytestmark = chromium.MARKS


class Writer:
    """Holds the real pipeline back, as a slow device would, and counts what it wrote."""

    def __init__(self, pipeline: CharsPipeline) -> None:
        self.pipeline, self.working = pipeline, pipeline._characters
        self.reset()
        pipeline._characters = self.characters  # type: ignore[method-assign]

    def reset(self) -> None:
        self.pause, self.breaks_after, self.written, self.running = 0.0, 10**9, 0, 0

    def characters(self, *arguments: Any) -> Iterator[str]:
        self.running += 1
        try:
            for number, character in enumerate(self.working(*arguments)):
                if number == self.breaks_after:
                    raise RuntimeError("secret")
                time.sleep(self.pause)
                self.written += 1
                yield character
        finally:
            self.running -= 1


class Page(chromium.Page):
    """The page with a text in it."""

    def set(self, **fields: object) -> None:
        for name, value in fields.items():
            self.find(f"#{name}").clear()
            self.find(f"#{name}").send_keys(str(value))

    def story(self) -> str:
        return self.find("#story").get_attribute("textContent")

    def done(self) -> None:
        self.wait(lambda: self.find("#write").is_enabled())


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Writer]]:
    pipeline = load(write_chars_bundle(tmp_path_factory.mktemp("bundles") / "chars.edge"))
    writer = Writer(pipeline)
    with chromium.serving(create_app([pipeline, FakePipeline()])) as url:
        yield url, writer


@pytest.fixture
def page(browser: webdriver.Chrome, service: tuple[str, Writer]) -> Iterator[Page]:
    with chromium.opened(browser, service[0], Page) as page:
        yield page
        browser.get("about:blank")
        page.wait(lambda: service[1].running == 0)
        service[1].reset()


@pytest.fixture
def writer(service: tuple[str, Writer]) -> Writer:
    return service[1]


def expected(writer: Writer, prompt: str, **options: Any) -> str:
    return "".join(writer.working(prompt, *(options[name] for name in ("length", "temperature", "top_k", "seed"))))


def test_the_text_grows_as_it_is_written(page: Page, writer: Writer) -> None:
    writer.pause = 0.05  # three seconds: a busy browser answers a few times at least
    options = {"length": 60, "temperature": 1.5, "top_k": 3, "seed": 7}
    page.set(prompt="ab a", **options)
    page.find("#write").click()
    seen = {len(page.story())}
    while not page.find("#write").is_enabled():
        seen.add(len(page.story()))
    assert len(seen) >= 4, "at several moments there was more than before"
    assert page.story() == "ab a" + expected(writer, "ab a", **options)
    assert page.find(".story .given").text == "ab a"
    assert page.find("#spoken").get_attribute("textContent") == "60 characters were written."
    assert page.find("#rate").text.startswith("60 characters")


def test_stop_stops_the_server_and_keeps_the_text(page: Page, writer: Writer) -> None:
    writer.pause = 0.02
    page.set(length=2000)
    page.find("#write").click()
    page.wait(lambda: len(page.story()) >= 8)
    page.find("#stop").click()
    page.wait(lambda: writer.running == 0, 3)
    written, shown = writer.written, page.story()
    assert 8 <= len(shown) <= written < 400
    time.sleep(0.3)
    assert (writer.written, page.story()) == (written, shown)
    assert page.run("return document.activeElement.id") == "write", "the focus is not lost with the button"
    assert not page.find("#message").is_displayed(), "that it stops is no failure"
    writer.pause = 0
    page.set(length=9)
    page.find("#onward").click()
    page.done()
    options = {"length": 9, "temperature": 0.8, "top_k": 0, "seed": 1}
    assert page.story() == shown + expected(writer, shown, **options), "it goes on from there, with other draws"


def test_leaving_stops_it_and_the_text_is_there_on_return(page: Page, writer: Writer) -> None:
    writer.pause = 0.02
    page.set(prompt="b", length=2000, seed=5)
    page.find("#prompt").send_keys(Keys.CONTROL, Keys.ENTER)
    page.wait(lambda: len(page.story()) >= 5)
    page.choose("age")
    page.wait(lambda: writer.running == 0, 3)
    page.choose("chars")
    assert page.story()[0] == "b"
    assert len(page.story()) >= 5
    assert page.find("#prompt").get_attribute("value") == "b"
    assert page.find("#seed").get_attribute("value") == "5"
    assert page.find("#write").is_enabled()


def test_what_goes_wrong_is_said_and_the_text_stays(page: Page, writer: Writer) -> None:
    page.set(length=20)
    page.find("#write").click()
    page.done()
    text = page.story()
    assert len(text) == 20

    page.set(length=0)
    page.find("#write").click()
    assert page.find("#message-title").text == "Length does not fit"
    assert page.find("#message-detail").text.startswith("Found 0; expected: characters to write, 1 to 2000")
    assert page.run("return document.activeElement.id") == "length"
    page.set(length=20)

    writer.breaks_after = 12
    page.find("#onward").click()
    page.wait(lambda: page.find("#message-title").text == "The text broke off")
    assert page.story().startswith(text)
    assert 20 < len(page.story()) <= 32
    assert "secret" not in page.find("#message").text
    writer.breaks_after = 10**9

    page.run("window.ask = window.fetch; window.fetch = (url, request) => window.ask(url, {...request, body: '{'})")
    page.find("#onward").click()
    page.wait(lambda: page.find("#message-title").text == "The server did not understand the request")
    page.run("window.fetch = window.ask")
    page.find("#onward").click()
    page.done()
    assert not page.find("#message").is_displayed(), "a good answer takes the complaint away"
    page.find("#wipe").click()
    assert page.story() == ""


def test_too_many_texts_at_a_time(page: Page, writer: Writer) -> None:
    writer.pause = 0.05
    script = """
      const request = { method: "POST", headers: { "Content-Type": "application/json", Accept: "text/event-stream" } };
      request.body = JSON.stringify({ length: 2000 });
      window.held = new AbortController();
      const held = { ...request, signal: window.held.signal };
      for (let text = 0; text < arguments[0]; text += 1) fetch("v1/chars", held).catch(() => {});
    """
    page.run(script, module.MOST_TEXTS)
    page.wait(lambda: writer.running == module.MOST_TEXTS)
    page.find("#write").click()
    page.wait(lambda: page.find("#message").is_displayed())
    assert page.find("#message-title").text == "The server is not ready"
    assert "4 texts are being written already" in page.find("#message-detail").text
    page.run("window.held.abort()")
    page.wait(lambda: writer.running == 0)
    writer.pause = 0
    page.set(length=6)
    page.find("#write").click()
    page.wait(lambda: len(page.story()) == 6)


def test_characters_that_it_does_not_know(page: Page) -> None:
    page.set(prompt="añbz", length=5)
    page.find("#write").click()
    page.done()
    assert page.find("#note").text == "The network does not know “ñ”, “z”."
    before = page.find("#seed").get_attribute("value")
    page.find("#another").click()
    assert page.find("#seed").get_attribute("value") != before


def test_it_fits_and_everything_pressable_has_a_name(page: Page) -> None:
    page.open(width=360, height=780)
    page.set(prompt="a" * 200, length=40)
    page.find("#write").click()
    page.done()
    assert page.run("return document.documentElement.scrollWidth") <= 360
    for element in page.all("button, input, textarea, a, [role=region]"):
        if element.is_displayed():
            assert element.accessible_name, element.get_attribute("outerHTML")
