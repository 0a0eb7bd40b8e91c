"""The page in a real browser: photos, the drawn answer, the distribution, the camera, errors, both colour schemes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from service.app import create_app
from tests.service.fake_pipeline import FACES, FakePipeline, encoded

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from tests.service import browser as chromium

pytestmark = chromium.MARKS


class Page(chromium.Page):
    """The page with faces in it."""

    def show(self, path: Path) -> None:
        self.upload(path)
        self.wait(lambda: len(self.all(".target")) == len(FACES))


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[str, FakePipeline]]:
    pipeline = FakePipeline()
    # The second bundle's task has no module of its own in the page.
    app = create_app([pipeline, FakePipeline("other", task="something-new")], max_pixels=4_000_000)
    with chromium.serving(app) as url:
        yield url, pipeline


@pytest.fixture
def page(browser: webdriver.Chrome, service: tuple[str, FakePipeline]) -> Iterator[Page]:
    url, pipeline = service
    with chromium.opened(browser, url, Page) as page:
        yield page
        pipeline.fault = None


def test_a_photo_is_answered_and_drawn(page: Page, png: Path) -> None:
    page.show(png)
    assert page.find("#answer h2").text == "2 faces"
    ages = [row.text.split() for row in page.all(".faces button")]
    assert [words[0] for words in ages] == ["25", "45"]
    assert page.find("#spoken").get_attribute("textContent") == "2 faces, aged about 25 (17 to 33), 45 (37 to 53)."
    assert "ms" in page.wait(lambda: page.find("#timing").text)

    drawn = page.overlay()
    height, width = drawn.shape[:2]
    for x1, y1, x2, y2 in FACES:
        left, top, right, bottom = round(x1 * width), round(y1 * height), round(x2 * width), round(y2 * height)
        middle = (top + bottom) // 2
        assert drawn[middle, left - 3 : left + 4, 3].max() > 200, "the left edge is drawn"
        assert drawn[middle, right - 3 : right + 4, 3].max() > 200, "the right edge is drawn"
        assert drawn[middle, (left + right) // 2, 3] == 0, "the face itself stays visible"
    assert drawn[: round(0.05 * height), :, 3].max() == 0, "nothing is drawn where nothing was found"


def test_a_click_on_a_face_shows_its_distribution(page: Page, png: Path) -> None:
    page.show(png)
    for target, mean_age, low, high in ((0, 25, 17, 33), (1, 45, 37, 53)):
        mean = f"{mean_age}.0"
        page.all(".target")[target].click()
        assert page.find(".big b").text == mean
        words = " ".join(text.text for text in page.all(".chart text"))
        assert f"mean {mean}" in words
        assert f"80 %: {low}–{high}" in words
        assert "Age (years)" in words
        assert len(page.all(".chart rect.inside")) == high - low + 1, "the bars of the central 80 %"
        shown = [int(text.text) for text in page.all(".chart text") if text.text.isdecimal()]
        assert shown[0] <= mean_age - 18, "all but a few thousandths of the probability is on the axis"
        assert shown[-1] >= mean_age + 18
        assert len(page.all(".chart rect.inside, .chart rect.outside")) == shown[-1] - shown[0] + 1
        assert page.all(".target")[target].get_attribute("aria-pressed") == "true"
        assert page.all(".target")[1 - target].get_attribute("aria-pressed") == "false"
    heights = [float(bar.get_attribute("height")) for bar in page.all(".chart rect.inside, .chart rect.outside")]
    assert shown[0] + int(np.argmax(heights)) == 45


def test_all_of_it_works_by_keyboard(page: Page, png: Path) -> None:
    page.show(png)
    first, second = page.all(".target")
    assert "Face 1: 25 years, between 17 and 33" in first.get_attribute("aria-label")
    second.send_keys(Keys.ENTER)
    assert page.find(".big b").text == "45.0"
    page.all(".faces button")[0].send_keys(Keys.SPACE)
    assert page.find(".big b").text == "25.0"
    chart = page.find(".chart")
    chart.send_keys(Keys.ARROW_RIGHT)
    assert chart.get_attribute("aria-valuenow") == "26"
    assert page.find(".readout").text.startswith("26 years: 6.")
    chart.send_keys(Keys.HOME)
    assert page.find(".readout").text == "0 years: 0.0 %"
    chart.send_keys(Keys.ARROW_LEFT)
    assert page.find(".readout").text == "0 years: 0.0 %", "the axis ends here"


def test_boxes_of_a_photo_that_was_scaled_down_fit(
    page: Page, service: tuple[str, FakePipeline], tmp_path: Path
) -> None:
    """4000 x 3000 pixels are more than the server takes; the browser sends 2048 x 1536 and maps the boxes back."""
    path = tmp_path / "large.jpg"
    path.write_bytes(encoded(".jpg", width=4000, height=3000))
    page.show(path)
    for target, (x1, y1, x2, y2) in zip(page.all(".target"), FACES, strict=True):
        style = page.run("const s = arguments[0].style; return [s.left, s.top, s.width, s.height]", target)
        shares = [float(value.rstrip("%")) / 100 for value in style]
        assert shares == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=2e-3)


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_the_drawing_has_the_screen_s_own_pixels(page: Page, png: Path, ratio: float) -> None:
    page.open(width=390, height=844, ratio=ratio)
    page.show(png)
    canvas, css = page.run(
        "const c = document.getElementById('picture'); return [c.width, c.getBoundingClientRect().width]"
    )
    assert canvas == pytest.approx(css * ratio, abs=1)
    assert page.run("return document.documentElement.scrollWidth") <= 390, "nothing sticks out to the side"


def test_a_file_that_is_no_photo(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a photo")
    page.upload(path)
    page.wait(lambda: page.find("#message").is_displayed())
    assert page.find("#message-title").text == "That file is not a photo"
    assert "notes.txt" in page.find("#message-detail").text


def test_the_server_s_problem_is_shown_in_its_own_words(
    page: Page, service: tuple[str, FakePipeline], png: Path, tmp_path: Path
) -> None:
    tiny = tmp_path / "tiny.png"
    tiny.write_bytes(encoded(width=2, height=2))
    page.upload(tiny)
    page.wait(lambda: page.find("#message").is_displayed())
    assert page.find("#message-title").text == "That picture cannot be read"
    assert page.find("#message-detail").text == "the image is 2 x 2; faces need at least 4 x 4"
    assert page.find("#message-id").text.startswith("Request ")
    assert page.find("#message").get_attribute("role") == "alert"
    page.show(png)
    assert not page.find("#message").is_displayed(), "a good answer takes the complaint away"


def test_no_face_is_said_plainly(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "small.png"
    path.write_bytes(encoded(width=20, height=20))
    page.upload(path)
    page.wait(lambda: page.all("#answer h2"))
    assert page.find("#answer h2").text == "No face was found"
    assert page.all(".target") == []


def test_a_server_that_is_gone(page: Page, png: Path) -> None:
    page.run("window.fetch = () => Promise.reject(new TypeError('Failed to fetch'))")
    page.upload(png)
    page.wait(lambda: page.find("#message").is_displayed())
    assert page.find("#message-title").text == "The server cannot be reached"


def test_pasting_and_dropping(page: Page) -> None:
    script = """
      const canvas = document.createElement("canvas");
      canvas.width = 64; canvas.height = 64;
      canvas.getContext("2d").fillRect(0, 0, 64, 64);
      return new Promise((done) => canvas.toBlob((blob) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([blob], "made.png", { type: "image/png" }));
        const event = arguments[0] === "paste"
          ? new ClipboardEvent("paste", { clipboardData: transfer })
          : new DragEvent("drop", { dataTransfer: transfer, cancelable: true });
        dispatchEvent(event);
        done(true);
      }));
    """
    for how in ("paste", "drop"):
        page.open()
        page.run(script, how)
        page.wait(lambda: len(page.all(".target")) == 2)
        assert page.find(".faces button").text.split()[0] == "0", "a black picture"


def test_the_camera_runs_live_and_stops(page: Page, service: tuple[str, FakePipeline]) -> None:
    pipeline = service[1]
    page.find("#camera").click()
    page.wait(lambda: "fps" in page.find("#timing").text)
    assert len(page.all(".target")) == 2
    assert page.overlay()[..., 3].max() > 200
    left = page.run("return arguments[0].style.left", page.all(".target")[0])
    assert float(left.rstrip("%")) / 100 == pytest.approx(1 - FACES[0][2], abs=0.01), "a mirror, like the video"
    page.all(".target")[1].click()
    before = pipeline.calls
    page.run("return new Promise((done) => setTimeout(done, 1500))")
    rate = (pipeline.calls - before) / 1.5
    assert 2 <= rate <= 11, "at most ten a second"
    assert page.find("#answer h2").text == "2 faces", "the same two, followed from picture to picture"
    assert page.all(".target")[1].get_attribute("aria-pressed") == "true", "a chosen face stays chosen"
    page.find("#live").click()
    assert page.find("#empty").is_displayed()
    assert page.run("return document.getElementById('video').srcObject") is None


def test_nothing_is_sent_once_the_camera_was_stopped(page: Page) -> None:
    page.find("#camera").click()
    page.wait(lambda: "fps" in page.find("#timing").text)
    assert page.sent_after_a_stop() == 0


def test_a_camera_that_is_refused(page: Page) -> None:
    page.run("navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('x', 'NotAllowedError'))")
    page.find("#camera").click()
    page.wait(lambda: page.find("#message").is_displayed())
    assert page.find("#message-title").text == "The camera did not start"
    assert "blocked" in page.find("#message-detail").text


def test_another_bundle_is_asked_about_the_same_photo(page: Page, png: Path) -> None:
    page.show(png)
    page.choose("other")
    page.wait(lambda: page.all("#answer pre"))
    assert '"faces"' in page.find("#answer pre").text
    assert page.all(".target") == []
    page.choose("age")
    page.wait(lambda: len(page.all(".target")) == 2)


def luminance(color: str) -> float:
    """Relative luminance of ``rgb(r, g, b)`` (WCAG 2.2)."""
    channels = np.array([float(value) for value in color[color.index("(") + 1 : -1].split(",")[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_schemes(page: Page, png: Path, scheme: str) -> None:
    page.open(scheme=scheme)
    page.show(png)
    ground = luminance(page.find("body").value_of_css_property("background-color"))
    assert (ground < 0.1) is (scheme == "dark")
    surfaces = {
        ".card .quiet": ".card",
        ".faces .range": ".card",
        ".big b": ".card",
        "footer p": "body",
        "#timing": "#stage",
        "#again": "#again",
    }
    for text, surface in surfaces.items():
        one = luminance(page.find(text).value_of_css_property("color").replace("rgba", "rgb"))
        two = luminance(page.find(surface).value_of_css_property("background-color").replace("rgba", "rgb"))
        ratio = (max(one, two) + 0.05) / (min(one, two) + 0.05)
        assert ratio >= 4.5, text


def test_everything_pressable_has_a_name(page: Page, png: Path) -> None:
    page.show(png)
    for element in page.all("button, select, input, a, [role=slider]"):
        if element.is_displayed():
            assert element.accessible_name, element.get_attribute("outerHTML")


def test_the_oracle_of_the_overlay() -> None:
    """OpenCV agrees on where the boxes of the fake faces lie in a picture of 640 x 480."""
    image = cv2.imdecode(np.frombuffer(encoded(width=640, height=480), np.uint8), cv2.IMREAD_COLOR)
    faces = FakePipeline().predict(image[..., ::-1])["faces"]
    assert faces[0]["box"] == pytest.approx([64, 96, 256, 288])
