"""The page with a bundle that describes clips: videos, photos, the camera's last frames, and what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from service.app import create_app
from tests.captions import write_caption_bundle
from tests.service.fake_pipeline import FakePipeline, encoded
from tests.videos import write_video

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver

from tests.service import browser as chromium

pytestmark = chromium.MARKS


class Page(chromium.Page):
    """The page with a caption in it."""

    def show(self, path: Path) -> None:
        self.upload(path)
        self.wait(lambda: self.all(".sentence"))

    def painted(self) -> list[float]:
        """The mean red of each thumbnail, once all of them are painted."""
        script = """
          return [...document.querySelectorAll('.frames canvas')].map((canvas) => {
            const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            let red = 0;
            for (let i = 0; i < data.length; i += 4) red += data[i];
            return 4 * red / data.length;
          })"""
        self.wait(lambda: self.all(".frames canvas[width]"))
        self.wait(lambda: len(self.all(".frames canvas[width]")) == len(self.all(".frames canvas")))
        return self.run(script)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    bundle = write_caption_bundle(tmp_path_factory.mktemp("bundles") / "caption.edge")
    app = create_app([bundle, FakePipeline()], threads=1, max_bytes=1_000_000)
    with chromium.serving(app) as url:
        yield url


@pytest.fixture
def page(browser: webdriver.Chrome, service: str) -> Iterator[Page]:
    with chromium.opened(browser, service, Page) as page:
        yield page


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    return {suffix: write_video(folder / f"clip{suffix}", 50) for suffix in (".webm", ".avi")}


def test_a_video_plays_beside_its_caption(page: Page, videos: dict[str, Path]) -> None:
    assert page.find("#title").text == "What does it show?"
    assert page.find("#choose").text == "Choose a photo or video"
    page.show(videos[".webm"])
    caption = page.find(".sentence").text
    assert caption.split()[1] == "picture"
    assert page.find(".card .quiet b").text == "−0.25"
    others = [(item.find_element("css selector", ".words").text, item.find_element("css selector", ".value").text)
              for item in page.all(".sentences li")]  # fmt: skip
    first = caption.split()[0]
    assert others == [(f"{first} scene", "−0.50"), (f"{first} view", "−1.13")]
    widths = page.run("return [...document.querySelectorAll('.bar-of')].map((bar) => parseFloat(bar.style.width))")
    assert widths == pytest.approx([100 * np.exp(-0.25), 100 * np.exp(-0.875)], abs=0.06), "beside the caption's −0.25"
    assert not page.find(".card .quiet + .quiet").is_displayed(), "nothing to note"
    assert [label.text for label in page.all(".frames span")] == ["0.2 s", "0.7 s", "1.2 s", "1.7 s"]
    assert page.find("#spoken").get_attribute("textContent") == f"{caption}."
    video = page.find("#video")
    assert video.is_displayed()
    assert page.run("return [arguments[0].videoWidth, arguments[0].videoHeight, arguments[0].loop]", video) == [
        192, 128, True,
    ]  # fmt: skip
    page.wait(lambda: page.run("return arguments[0].currentTime > 0.1", video))
    assert page.run("return document.elementFromPoint(...arguments).id", *middle(page)) == "video", "its controls"


def middle(page: Page) -> tuple[float, float]:
    script = "const b = document.getElementById('video').getBoundingClientRect(); return [b.x, b.y, b.width, b.height]"
    left, top, width, height = page.run(script)
    return left + width / 2, top + height / 2


def test_a_frame_is_visited_in_the_video(page: Page, videos: dict[str, Path]) -> None:
    page.show(videos[".webm"])
    page.all(".frames button")[2].click()
    video = page.find("#video")
    page.wait(lambda: not page.run("return arguments[0].seeking", video))
    assert page.run("return [arguments[0].paused, arguments[0].currentTime]", video) == [True, pytest.approx(1.24)]
    assert [label.text for label in page.all(".frames [aria-current] span")] == ["1.2 s"]


def test_thumbnails_are_the_frames_that_were_looked_at(page: Page, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "steps.webm"), cv2.VideoWriter_fourcc(*"VP80"), 10, (160, 120))
    for number in range(40):
        writer.write(np.full((120, 160, 3), (0, 0, 60 * (number // 10) + 30), np.uint8))
    writer.release()
    page.show(tmp_path / "steps.webm")
    assert page.painted() == pytest.approx([30, 90, 150, 210], abs=8)
    assert page.find(".sentence").text == "dim picture", "the mean of the four is 120"


def test_a_video_that_only_the_server_can_read(page: Page, videos: dict[str, Path]) -> None:
    page.show(videos[".avi"])
    assert [label.text for label in page.all(".frames span")] == ["0.2 s", "0.7 s", "1.2 s", "1.7 s"]
    page.wait(lambda: page.find("#picture").is_displayed())
    assert page.find(".card .quiet + .quiet").text == (
        "Note: this browser cannot play the video, so its frames are shown."
    )
    assert [label.text for label in page.all(".frames [aria-current] span")] == ["0.2 s"]
    script = "return document.getElementById('picture').toDataURL()"
    before = page.run(script)
    page.all(".frames button")[3].click()
    page.wait(lambda: page.run(script) != before)


def test_a_photo(page: Page, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(encoded(width=320, height=200, red=200))
    page.show(tmp_path / "photo.png")
    assert page.find(".sentence").text == "bright picture"
    assert page.all(".frames") == [], "one frame needs no list"
    assert page.find("#picture").is_displayed()


def test_the_camera_is_described_every_few_seconds(page: Page) -> None:
    # The page's clock runs four times as fast, so that nobody waits.
    page.run("""
      const [now, wait, ask] = [performance.now.bind(performance), window.setTimeout, window.fetch];
      performance.now = () => 4 * now();
      window.setTimeout = (call, milliseconds) => wait(call, milliseconds / 4);
      window.sent = [];
      window.fetch = (url, request) => {
        const frames = request?.body instanceof FormData ? request.body.getAll("frame") : [];
        if (frames.length) window.sent.push([performance.now(), frames.length]);
        return ask(url, request);
      };
    """)
    page.find("#camera").click()
    page.wait(lambda: page.all(".sentence"))
    page.wait(lambda: "between captions" in page.find("#timing").text)
    page.wait(lambda: len(page.run("return window.sent")) >= 3 and page.run("return window.sent.at(-1)[1]") == 8, 30)
    sent = page.run("return window.sent")
    counts = [count for _, count in sent]
    assert counts == sorted(counts), "the last frames, as many as there are, at most eight"
    assert 1 <= counts[0] <= 4, "the first answer comes soon"
    assert all(after - before > 2000 for (before, _), (after, _) in pairwise(sent)), "every few seconds"
    assert page.all(".frames button[disabled]"), "there is no video to go to"
    page.find("#live").click()
    assert page.find("#empty").is_displayed()
    page.run("return new Promise((done) => setTimeout(done, 800))")
    stopped = len(page.run("return window.sent"))
    page.run("return new Promise((done) => setTimeout(done, 4000))")
    assert len(page.run("return window.sent")) == stopped


def test_nothing_is_sent_once_the_camera_was_stopped(page: Page) -> None:
    page.find("#camera").click()
    page.wait(lambda: page.all(".sentence"))
    assert page.sent_after_a_stop() == 0


def test_files_that_are_no_clips(page: Page, tmp_path: Path, videos: dict[str, Path]) -> None:
    (tmp_path / "notes.txt").write_text("words")
    page.upload(tmp_path / "notes.txt")
    page.wait(lambda: page.find("#message").is_displayed())
    assert page.find("#message-title").text == "That file is neither photo nor video"
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x18ftypisom\0\0\0\0isommp41")
    page.upload(tmp_path / "broken.mp4")
    page.wait(lambda: page.find("#message-title").text == "That clip cannot be read")
    assert "damaged or truncated" in page.find("#message-detail").text
    (tmp_path / "long.mp4").write_bytes(bytes(1_200_000))
    page.upload(tmp_path / "long.mp4")
    page.wait(lambda: page.find("#message-title").text == "That video is too large")
    assert page.find("#message-detail").text.startswith("It has 1.1 MB, and this server takes 1.0.")
    page.show(videos[".webm"])
    assert not page.find("#message").is_displayed()


def test_a_bundle_for_photos_is_not_asked_about_a_video(page: Page, videos: dict[str, Path], tmp_path: Path) -> None:
    page.show(videos[".webm"])
    page.choose("age")
    assert page.find("#empty").is_displayed()
    assert page.find("#choose").text == "Choose a photo"
    assert page.run("return document.getElementById('video').getAttribute('src')") is None
    (tmp_path / "photo.png").write_bytes(encoded(width=640, height=480))
    page.upload(tmp_path / "photo.png")
    page.wait(lambda: len(page.all(".target")) == 2)
    page.choose("caption")
    page.wait(lambda: page.all(".sentence"))
    assert page.find("#picture").is_displayed()


@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_everything_pressable_has_a_name(page: Page, videos: dict[str, Path], width: int) -> None:
    page.open(width=width, height=844)
    page.show(videos[".webm"])
    page.painted()
    assert page.run("return document.documentElement.scrollWidth") <= width
    for element in page.all("button, select, input, a"):
        if element.is_displayed():
            assert element.accessible_name, element.get_attribute("outerHTML")
