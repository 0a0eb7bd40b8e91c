"""The page with tasks that are only a graph: arrays as JSON, and steps with the state kept by the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from flask import Flask

from service.app import create_app
from tests.bundles import SCALE, write_scale_bundle, write_sums_bundle

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver

from tests.service import browser as chromium

pytestmark = chromium.MARKS


class Page(chromium.Page):
    """The page with a graph in it."""

    def fill(self, field: str, text: str) -> None:
        self.find(field).clear()
        self.find(field).send_keys(text)

    def outputs(self) -> str:
        return self.find("#outputs").text

    def complaint(self) -> str:
        self.wait(lambda: self.find("#message").is_displayed())
        return self.find("#message-title").text


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Flask]]:
    folder = tmp_path_factory.mktemp("bundles")
    app = create_app([write_sums_bundle(folder / "sums.edge"), write_scale_bundle(folder / "scale.edge")], threads=1)
    with chromium.serving(app) as url:
        yield url, app


@pytest.fixture
def page(browser: webdriver.Chrome, service: tuple[str, Flask]) -> Iterator[Page]:
    with chromium.opened(browser, service[0], Page) as page:
        yield page


def test_the_example_fits_and_other_numbers_are_answered(page: Page) -> None:
    page.choose("scale")
    assert json.loads(page.find("#inputs").get_attribute("value")) == {"x": [[0, 0, 0]]}
    page.find("#ask").click()
    page.wait(lambda: page.outputs().startswith("{"))
    assert json.loads(page.outputs()) == {"y": [[0, 0, 0]]}
    page.fill("#inputs", '{"x": [[1, 2, 3], [4, 5, 6]]}')
    page.find("#ask").click()
    expected = {
        "y": [[one * factor for one, factor in zip(row, SCALE.tolist(), strict=True)] for row in ([1, 2, 3], [4, 5, 6])]
    }
    page.wait(lambda: json.loads(page.outputs()) == expected)
    assert page.all("#steps") == [], "it carries nothing from step to step"
    assert "x float32 [N, 3] numbers" in page.find("#answer").text
    page.choose("sums")
    page.choose("scale")
    assert page.find("#inputs").get_attribute("value") == '{"x": [[1, 2, 3], [4, 5, 6]]}', "what was written is kept"
    page.find("#try-example").click()
    page.wait(lambda: page.outputs().startswith("{"))
    (row,) = json.loads(page.find("#inputs").get_attribute("value"))["x"]
    recorded = np.random.default_rng(3).normal(size=(1, 3)).astype(np.float32)
    assert np.array_equal(np.array([row], np.float32), recorded), "as the bundle has it"
    assert json.loads(page.outputs())["y"][0] == pytest.approx((recorded[0] * SCALE).tolist(), rel=1e-6)
    assert max(len(number.strip("[], -")) for number in page.outputs().split()) <= 12, "no more digits than float32 has"


def test_steps_go_on_from_where_they_were(page: Page, service: tuple[str, Flask]) -> None:
    streams = service[1].extensions["edgedl"]["sums"].streams

    def step(lines: str, expected: list[Any]) -> None:
        page.fill("#steps", lines)
        page.find("#send").click()
        page.wait(lambda: [json.loads(line)["y"] for line in page.outputs().split("\n") if line[0] == "{"] == expected)

    assert page.find("#steps").get_attribute("value") == "0 0"
    step("1 2", [[1, 2]])
    step('10, 20\n\n{"x": [100, 200]}', [[1, 2], [11, 22], [111, 222]])
    assert len(streams) == 1
    page.find("#anew").click()
    page.wait(lambda: len(streams) == 0)
    step("[3, 4]", [[3, 4]])
    page.choose("scale")
    page.wait(lambda: len(streams) == 0)
    page.choose("sums")
    assert page.find("#steps").get_attribute("value") == "[3, 4]"


def test_a_whole_sequence_of_a_bundle_with_steps(page: Page) -> None:
    assert json.loads(page.find("#inputs").get_attribute("value")) == {"x": [[[0, 0]] * 3]}
    page.fill("#inputs", '{"x": [[[1, 10], [2, 20]]]}')
    page.find("#ask").click()
    page.wait(lambda: json.loads(page.outputs()) == {"y": [[[1, 10], [3, 30]]], "sn": [[3, 30]]})


def test_what_is_wrong_is_said(page: Page, service: tuple[str, Flask]) -> None:
    page.fill("#inputs", "{")
    page.find("#ask").click()
    assert page.complaint() == "That is not JSON"
    page.fill("#inputs", '{"x": [[1, 2]]}')
    page.find("#ask").click()
    page.wait(lambda: page.complaint() == "That input cannot be read")
    page.fill("#steps", "1 two")
    page.find("#send").click()
    page.wait(lambda: page.complaint() == "That step cannot be read")
    assert page.find("#message-detail").text.startswith("Line 1 is “1 two”")
    page.fill("#steps", "1 2 3")
    page.find("#send").click()
    page.wait(lambda: "a step has 2 numbers" in page.find("#message-detail").text)
    service[1].extensions["edgedl"]["sums"].streams._open.clear()
    page.fill("#steps", "1 2")
    page.find("#send").click()
    page.wait(lambda: page.complaint() == "The stream is lost")
    page.find("#send").click()
    page.wait(lambda: page.outputs() == '{"y":[1,2]}')
    assert not page.find("#message").is_displayed()


def test_it_fits_and_everything_pressable_has_a_name(page: Page) -> None:
    page.open(width=360, height=780)
    page.find("#ask").click()
    page.wait(lambda: page.outputs().startswith("{"))
    assert page.run("return document.documentElement.scrollWidth") <= 360
    for element in page.all("button, textarea, a, [role=region]"):
        if element.is_displayed():
            assert element.accessible_name, element.get_attribute("outerHTML")
