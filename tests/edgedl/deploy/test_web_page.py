"""The page in Chromium: it answers as Python does, without a network, and replays the recorded answers itself."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedl.deploy.web.document import page_html
from runtime.bundle import Bundle
from runtime.verify import verify
from service.app import create_app
from tests.edgedl.deploy.conftest import filmed
from tests.edgedl.deploy.static_site import hosted

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver

from tests.service import browser as chromium
from tests.service.accessibility import findings

pytestmark = [*chromium.MARKS, pytest.mark.network]

Made = Callable[[str], tuple[Bundle, Path]]


class Page(chromium.Page):
    """The page of a bundle."""

    def ask(self, url: str, body: object = None, method: str = "POST", **headers: str) -> Any:
        """What the page would be answered, as JSON."""
        script = """
          const [url, method, body, headers, done] = arguments;
          const ask = async () => {
            const { answer } = await import("./static/local/service.js");
            const picture = headers["Content-Type"] === "image/png";
            const bytes = picture && Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
            const sent = picture ? new Blob([bytes], { type: "image/png" }) : body ?? undefined;
            const response = await answer(url, { method, headers, body: sent });
            return response.headers.get("Content-Type") === "application/json" ? response.json() : response.text();
          };
          ask().then(done, (error) => done(String(error)));
        """
        return self.driver.execute_async_script(script, url, method, body, headers)

    def check(self) -> str:
        """Replays the recorded answers; the verdict."""
        self.find("#check").click()
        return self.wait(lambda: self.find("#checked").get_attribute("data-verdict"), 60)

    def kept(self) -> None:
        """Waits until the page needs no network any more."""
        self.wait(lambda: self.find("body").get_attribute("data-kept") == "yes", 30)


@pytest.fixture(scope="module")
def site_of(page_of: Made) -> Iterator[Callable[[str], str]]:
    """The address of the page of a frozen bundle."""
    with ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(hosted(page_of(name)[1])).url)


@pytest.fixture
def opened(browser: webdriver.Chrome, site_of: Callable[[str], str]) -> Iterator[Callable[[str], Page]]:
    """Opens the page of a frozen bundle; nothing may leave its site."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(chromium.opened(browser, site_of(name), Page))


def approximately(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: approximately(one) for key, one in value.items()}
    if isinstance(value, list):
        return [approximately(one) for one in value]
    return pytest.approx(value, abs=2e-4) if isinstance(value, float) else value


def steps(count: int) -> dict[str, Any]:
    return {"steps": [[float(step == 2), 0.4] for step in range(count)]}


def png(side: int) -> str:
    from runtime.media.pictures import encode_png

    picture = np.random.default_rng(side).integers(0, 256, (side, side + 3, 3)).astype(np.uint8)
    return base64.b64encode(encode_png(picture)).decode()


TEXT = {"prompt": "the é", "length": 40, "temperature": 0.8, "top_k": 3, "seed": 11}
PICTURE, JSON = "image/png", "application/json"
QUESTIONS: dict[str, list[tuple[str, Any, str]]] = {
    "digits-dbn": [
        ("v1/digits", png(30), PICTURE),
        ("v1/digits", png(1101), PICTURE),
        ("v1/digits/drawings", {"label": 4, "seed": 9}, JSON),
    ],
    "caption-mean": [("v1/caption?thumbnails=0", png(40), PICTURE), ("v1/caption", png(600), PICTURE)],
    "chars": [("v1/chars", TEXT, JSON), ("v1/chars", {"length": 7, "temperature": 0}, JSON)],
    "timer-lstm": [("v1/timer", None, JSON)],
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_answers_are_those_of_the_service(opened: Callable[[str], Page], page_of: Made, name: str) -> None:
    page = opened(name)
    client = create_app([page_of(name)[0]]).test_client()
    for url, body, kind in QUESTIONS[name]:
        recorded = client.get(f"/{url}/example").get_json() if body is None else body
        text = recorded if kind == PICTURE else json.dumps(recorded)
        data = base64.b64decode(body) if kind == PICTURE else text
        there = client.post(f"/{url}", data=data, content_type=kind).get_json()["results"][0]
        here = page.ask(url, text, **{"Content-Type": kind})
        if name == "chars":
            events = [json.loads(line[6:]) for line in here.splitlines() if line.startswith("data: ")]
            here = {"text": "".join(one["text"] for one in events[:-1]), **events[-1]}
        else:
            here = here["results"][0]
        assert here == approximately(there), url


def test_steps_are_answered_as_in_python(opened: Callable[[str], Page], page_of: Made) -> None:
    from runtime.pipelines.tensors import TensorPipeline

    bundle, _ = page_of("timer-lstm")
    page = opened("timer-lstm")
    base = f"v1/{bundle.manifest.name}/streams"
    stream = page.ask(base)["stream"]
    found = [page.ask(f"{base}/{stream}", json.dumps(steps(count)))["results"] for count in (3, 2)]
    with TensorPipeline.open(bundle) as pipeline:
        lines = pipeline.lines()
        expected = [[lines.run(lines.inputs(step)) for step in steps(count)["steps"]] for count in (3, 2)]
    assert found == approximately(expected)
    assert "a step has 2 numbers" in page.ask(f"{base}/{stream}", '{"steps": [[1, 2, 3]]}')["detail"]
    page.ask(f"{base}/{stream}", method="DELETE")
    assert "no such stream" in page.ask(f"{base}/{stream}", '{"steps": [[1, 2]]}')["detail"]


ROWS = """
  const cells = (row) => [...row.cells].map((cell) => cell.textContent);
  return [...document.querySelectorAll(".checks tbody tr")].map(cells);
"""


def test_a_wrong_answer_is_found(browser: webdriver.Chrome, page_of: Made, tmp_path: Path) -> None:
    _, folder = page_of("digits-dbn")
    shutil.copytree(folder, tmp_path / "site")
    path = tmp_path / "site/bundle/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["models"]["digits"]["parity"]["outputs"]["probabilities"]["atol"] = 1e-12
    path.write_text(json.dumps(manifest))
    with hosted(tmp_path / "site") as site, chromium.opened(browser, site.url, Page) as page:
        assert page.check() == "wrong"
        assert "does not give the recorded answers" in page.find("#checked").text
        assert len(page.all(".checks tr.wrong")) == 1


SPY = """
  window.asked = [];
  const post = Worker.prototype.postMessage;
  Worker.prototype.postMessage = function (message, ...rest) {
    if (message?.kind === "run") window.asked.push(message.feeds);
    return post.call(this, message, ...rest);
  };
"""
SEEN = """
  const shown = [".sentence", ".sentence + p b"].map((place) => document.querySelector(place).textContent);
  return { shown, clips: window.asked.map(({ clips }) => [clips.shape, Array.from(clips.data)]) };
"""


def test_without_a_network_it_replays_what_was_recorded_and_takes_the_camera(
    browser: webdriver.Chrome, page_of: Made
) -> None:
    from runtime.media.frames import reduced
    from runtime.pipelines.caption import CaptionPipeline

    bundle, folder = page_of("caption-mean")
    with hosted(folder) as site, chromium.opened(browser, site.url, Page) as page:
        page.kept()
        assert page.run("return crossOriginIsolated") is False, "this server isolates no page"
        site.take_down()
        page.url += "?threads=2"
        page.open()
        assert page.run("return crossOriginIsolated") is True, "so threads are allowed"
        assert page.check() == "ok"
        assert "2 threads" in page.find("#checked p").text
        rows = page.run(ROWS)
        expected_rows = [[check.model, check.output, "ok", str(check.cases)] for check in verify(bundle).checks]
        assert [[*row[:3], row[5]] for row in rows] == expected_rows
        assert any(float(row[3]) > 0 for row in rows)
        page.run(SPY)
        page.find("#camera").click()
        page.wait(lambda: page.all(".sentence"), 30)
        seen = page.run(SEEN)
    clips = [np.array(data, np.uint8).reshape(shape)[0] for shape, data in seen["clips"]]
    small = reduced(filmed(), bundle.manifest.pipeline["shorter"])
    assert clips[0].shape[1:] == small.shape
    assert np.abs(clips[0][-1].astype(int) - small).mean() < 6, "what the camera shows is the file"
    with CaptionPipeline.open(bundle) as pipeline:
        answers = [best for best, *_ in pipeline.captions(clips)]
    assert seen["shown"] in [[best.text, f"{best.score:.2f}".replace("-", "−")] for best in answers]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")], ids=["desktop", "phone"])
def test_everybody_can_use_it(opened: Callable[[str], Page], width: int, scheme: str) -> None:
    page = opened("digits-dbn")
    page.open(width=width, height=800, scheme=scheme)
    assert page.check() == "ok"
    assert findings(page) == []


def test_it_may_ask_no_other_site(opened: Callable[[str], Page]) -> None:
    page = opened("timer-lstm")
    script = (
        "const [done] = arguments; fetch('http://127.0.0.1:9/').then(() => done('sent'), (error) => done(error.name))"
    )
    assert page.driver.execute_async_script(script) == "TypeError"
    refusals = [line["message"] for line in page.driver.get_log("browser")]
    assert any("Content Security Policy" in line for line in refusals), refusals


def test_a_changed_page_of_the_service_is_noticed() -> None:
    page = (Path(__file__).parents[3] / "service/static/index.html").read_text(encoding="utf-8")
    assert "openapi.json" not in page_html(page)
    with pytest.raises(ValueError, match="not one"):
        page_html(page.replace("<footer>", "<footer >"))
