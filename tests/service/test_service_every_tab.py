"""Every tab of the page: what it says of its bundle, its example, by keyboard alone, on a phone, in both schemes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.app import create_app
from tests.frozen_bundles import unpack
from tests.service.fake_pipeline import FACES, ShownPipeline

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from tests.service import browser as chromium
from tests.service.accessibility import findings
from tests.service.browser import Page

pytestmark = chromium.MARKS

ANSWERS = {
    "age": ".faces .years",
    "caption": ".sentence",
    "chars": "#story .written",
    "digits": "#answer .chances .value",
    "timer": ".pulses tbody tr",
    "sgd": "#outputs",
    "other": "#answer pre",
}
"""What each tab answers with."""

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("bundles")
    names = {
        "caption": "caption-attention",
        "chars": "chars",
        "digits": "digits-dbn",
        "timer": "timer-elman",
        "sgd": "sgd",
    }
    others: list[Any] = [(name, unpack(frozen, folder)) for name, frozen in names.items()]
    app = create_app([ShownPipeline(), *others, ShownPipeline("other", task="something-new")], threads=1)
    with chromium.serving(app) as url:
        yield url


@pytest.fixture
def page(browser: webdriver.Chrome, service: str) -> Iterator[Page]:
    with chromium.opened(browser, service) as page:
        yield page


def answered(page: Page, name: str) -> None:
    """Waits for the answer of a tab, and until nothing is under way."""
    page.wait(lambda: page.run("return document.querySelector(arguments[0])?.textContent.trim()", ANSWERS[name]))
    page.wait(lambda: not page.find("#busy").is_displayed())
    if name == "sgd":
        page.wait(lambda: "force" in page.find("#outputs").text)
    if name == "timer":
        page.run("document.getElementById('run').click()")  # a plot that moves cannot be looked at


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_nothing_is_found_on_any_tab_and_the_answer_is_in_sight(
    page: Page, screen: dict[str, int], scheme: str
) -> None:
    page.open(**screen, scheme=scheme)
    for name, answer in ANSWERS.items():
        page.choose(name)
        assert findings(page) == [], name
        page.run("[...document.querySelectorAll('.example')].find((button) => button.checkVisibility())?.click()")
        answered(page, name)
        assert findings(page) == [], name
        sight = ".timeline" if name == "timer" else answer
        top = page.run("return document.querySelector(arguments[0]).getBoundingClientRect().top", sight)
        assert 0 <= top < screen["height"] - 20, (name, "what the answer begins with")


def test_a_chart_has_a_name_before_it_is_drawn(page: Page) -> None:
    """It is drawn once the page has given it a width, which may be after a screen reader has met it."""
    names = page.run("""
      const modules = Promise.all([import("/static/timeline.js"), import("/static/chart.js")]);
      return modules.then(([{ Timeline }, { DistributionChart }]) =>
        [new Timeline({ window: 100, threshold: 0.25, target: true }),
         new DistributionChart({ quantity: "Age", unit: "years" })].map(
           (chart) => chart.drawing.getAttribute("aria-label")));
    """)
    assert names == ["u1, u2 and the answer over time; no step yet", "Probability of each age"]


@pytest.mark.slow
def test_the_rules_find_what_is_wrong(page: Page) -> None:
    """Each rule is seen to fail once."""
    page.choose("sgd")
    breaks = {
        "contrast": "document.querySelector('#work-lead').style.color = '#9aa'",
        "headings": "document.querySelector('#work-title').outerHTML = '<h2 id=work-title>x</h2>'",
        "heading level": "document.querySelector('#answer h2').outerHTML = '<h4>x</h4><h1>y</h1><h3>z</h3>'",
        "twice": "document.querySelector('#ask').id = 'try-example'",
        "aria-describedby": "document.querySelector('#inputs').setAttribute('aria-describedby', 'gone')",
        "tabindex": "document.querySelector('#ask').tabIndex = 3",
        "scrolls": "outputs.textContent = 'x\\n'.repeat(99); outputs.removeAttribute('tabindex')",
        "target": "document.querySelector('#ask').style.cssText = 'min-height: 0; height: 12px; padding: 0'",
        "sticks out": "document.querySelector('#work-lead').style.minWidth = '2000px'",
        "no name": "document.querySelector('#ask').textContent = ''",
        "landmarks alike": "document.querySelector('#outputs').setAttribute('aria-label', 'Answer')",
    }
    for rule, script in breaks.items():
        page.open()
        page.choose("sgd")
        assert findings(page) == []
        page.run(script)
        assert any(found.startswith(rule) for found in findings(page)), rule


@pytest.mark.parametrize("name", [name for name in ANSWERS if name != "other"])
def test_an_example_is_tried_by_keyboard_alone(page: Page, name: str) -> None:
    focused = "return document.activeElement.id"
    keys = chromium.webdriver.ActionChains(page.driver)
    keys.send_keys(Keys.TAB).perform()
    assert page.run("return document.activeElement.className") == "skip"
    for _ in range(3):
        keys.send_keys(Keys.TAB).perform()
        if page.run(focused) == "tab-age":
            break
    for _ in range(list(ANSWERS).index(name)):
        keys.send_keys(Keys.ARROW_RIGHT).perform()
    keys.send_keys(Keys.ENTER).perform()
    assert page.run(focused) == f"tab-{name}"
    for _ in range(12):
        keys.send_keys(Keys.TAB).perform()
        assert page.run("return document.activeElement.matches(':focus-visible')"), "the focus is seen"
        if page.run(focused) in ("show-example", "try-example"):
            break
    keys.send_keys(Keys.ENTER).perform()
    answered(page, name)
    if name != "timer":
        page.wait(lambda: page.find("#spoken").get_attribute("textContent"))  # those who do not see it are told
    assert page.run("return document.activeElement !== document.body"), "the focus is not lost"


def test_the_chosen_tab_is_in_sight_where_the_row_is_wider_than_the_screen(page: Page) -> None:
    """Of seven, on a phone: the last one chosen, then the first one, by the address as a reload chooses it."""
    page.open(**PHONE)
    row = "const row = document.querySelector('.tabs'); const box = (node) => node.getBoundingClientRect();"
    assert page.run(f"{row} return row.scrollWidth > row.clientWidth")
    inside = f"""{row} const tab = box(document.getElementById(arguments[0]));
      return [tab.left >= box(row).left - 1, tab.right <= box(row).right + 1, scrollY]"""
    for name in ("other", "age", "sgd"):
        page.run("location.hash = arguments[0]", f"#/{name}")
        page.wait(lambda name=name: page.find(f"#tab-{name}").get_attribute("aria-selected") == "true")
        assert page.run(inside, f"tab-{name}") == [True, True, 0], name


def test_a_tab_says_what_its_bundle_does(page: Page) -> None:
    assert page.find("#about-what").text == "Ages of faces."
    assert page.find("#about-facts").text.replace("\n", " ") == "Licence CC0-1.0 Version 1.2.3"
    page.choose("sgd")
    words = page.find("#about-facts").text
    assert page.find("#about-what").text.startswith("A force from two strain gauges")
    assert "Runs on" in words
    assert "cpu, fp32" in words
    assert page.find("#tab-sgd").get_attribute("title") == page.find("#about-what").text
    page.open(**PHONE)
    page.choose("sgd")
    assert page.find("#about-what").is_displayed()
    assert not page.find("#about-facts").is_displayed(), "folded, so that the answer has room"
    page.find("#about-what").click()
    assert page.find("#about-facts").is_displayed()


def test_the_interval_stands_on_the_picture(page: Page) -> None:
    page.run(
        "window.drawn = []; const draw = CanvasRenderingContext2D.prototype.fillText;"
        "CanvasRenderingContext2D.prototype.fillText = function (text, ...at) {"
        "  drawn.push(text); draw.call(this, text, ...at); }"
    )
    page.find("#show-example").click()
    page.wait(lambda: len(page.all(".target")) == len(FACES))
    assert page.run("return [...new Set(drawn)].sort()") == ["25 (17–33)", "45 (37–53)"]
    assert "An estimate from the look of a face" in page.find("#answer").text


@pytest.mark.parametrize(
    ("tab", "script", "before"),
    [
        ("age", "", "#actions"),
        ("digits", "document.getElementById('try-example').click()", "#clear"),
        ("chars", "document.getElementById('write').click()", "#write"),
        ("chars", "document.getElementById('length').value = 0; document.getElementById('write').click()", "#length"),
        ("sgd", "document.getElementById('ask').click()", "#inputs"),
    ],
    ids=["photo", "drawing", "text", "setting", "numbers"],
)
def test_an_error_stands_beside_what_it_is_about(
    page: Page, tmp_path: Path, tab: str, script: str, before: str
) -> None:
    page.choose(tab)
    page.run("window.fetch = () => Promise.reject(new TypeError('Failed to fetch'))")
    if script:
        page.run(script)
    else:
        (tmp_path / "notes.txt").write_text("not a photo")
        page.upload(tmp_path / "notes.txt")
    page.wait(lambda: page.find("#message").is_displayed())
    above, gap = page.run(
        "const box = (node) => node.getBoundingClientRect(); const near = document.querySelector(arguments[0]);"
        "const message = box(document.getElementById('message'));"
        "return [box(near).bottom <= message.top, message.top - box(near).bottom]",
        before,
    )
    assert above
    assert gap < 60
    top, bottom = page.run(
        "const b = document.getElementById('message').getBoundingClientRect(); return [b.top, b.bottom]"
    )
    assert top >= 0
    assert bottom <= 860
    page.choose("timer")
    page.choose(tab)
    assert not page.find("#message").is_displayed(), "another tab takes the complaint away, and it can come back"
    assert page.all("#message")


def test_pictures_are_the_frames_of_a_clip(page: Page, tmp_path: Path) -> None:
    import cv2

    def write(name: str, level: int, size: int = 24) -> str:
        cv2.imwrite(str(tmp_path / name), np.full((size, size, 3), level, np.uint8))
        return str(tmp_path / name)

    page.choose("caption")
    files = [write(f"f{number}.png", 25 * number) for number in (10, 2, 1)]
    page.run(
        "window.sent = []; const ask = fetch;"
        "window.fetch = (url, request) => { sent.push(request); return ask(url, request) }"
    )
    page.find("#file").send_keys("\n".join(files))
    page.wait(lambda: page.all(".sentence") and page.find(".sentence").text)
    script = (
        "return Promise.all([...sent.at(-1).body.values()].map(async (file) => {"
        " const canvas = new OffscreenCanvas(1, 1).getContext('2d');"
        " canvas.drawImage(await createImageBitmap(file), 0, 0); return canvas.getImageData(0, 0, 1, 1).data[0] }))"
    )
    assert page.run(script) == [25, 50, 250], "in the order of their numbers"
    page.choose("age")
    assert page.find("#empty").is_displayed(), "a clip is nothing for a bundle of photos"
    page.choose("caption")
    page.find("#file").send_keys("\n".join([files[0], write("g.png", 9, 30)]))
    page.wait(lambda: page.find("#message").is_displayed())
    assert page.find("#message-title").text == "Those pictures are no clip"
    assert "“g.png” 30 × 30" in page.find("#message-detail").text
