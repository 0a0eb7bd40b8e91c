"""The page of an age bundle: a photo is answered as in Python, by the one graph of the bundle."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgedl.deploy.web.parts import page_manifest
from runtime.errors import InputError
from runtime.pipelines.age import AgePipeline
from tests.edgedl.deploy.static_site import hosted
from tests.frozen_bundles import unpack

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver

from tests.edgedl.deploy.test_web_page import Page, approximately
from tests.service import browser as chromium


def test_a_bundle_that_needs_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"runs the model 'photo', and this bundle has faces, .* --one-graph"):
        page_manifest(unpack("age", tmp_path))


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.browser
@pytest.mark.xdist_group("browser")
@pytest.mark.skipif(not chromium.CHROMIUM or not chromium.CHROMEDRIVER, reason="Chromium is not on the PATH")
def test_a_photo_is_answered_as_in_python(browser: webdriver.Chrome, portrait_path: Path, tmp_path: Path) -> None:
    from edgedl.cli import main

    bundle = tmp_path / "age.edge"
    assert main(["pull", "age", "--one-graph", "-o", str(bundle)]) == 0
    assert main(["pack", str(bundle), "--web", str(tmp_path / "site")]) == 0
    portrait = cv2.imread(str(portrait_path))
    wide = np.concatenate([portrait, portrait[:, ::-1]], axis=1)
    with hosted(tmp_path / "site") as site, chromium.opened(browser, site.url, Page) as page:
        page.kept()
        site.take_down()
        page.open()
        with AgePipeline.open(bundle) as pipeline:
            for photo in (portrait, wide, portrait[:100, :100]):
                data = cv2.imencode(".png", photo)[1].tobytes()
                there = pipeline.predict(data, distribution=True)
                body = base64.b64encode(data).decode()
                (here,) = page.ask("v1/age?distribution=1", body, **{"Content-Type": "image/png"})["results"]
                assert here.keys() == there.keys()
                assert len(here["faces"]) == len(there["faces"])
                for found, expected in zip(here["faces"], there["faces"], strict=True):
                    assert found["box"] == pytest.approx(expected["box"], abs=0.1)
                    assert found["age"] == pytest.approx(expected["age"], abs=0.1)
                    rounded = {"age", "low", "high", "box", "keypoints", "probabilities"}
                    rest = expected.keys() - rounded
                    assert {key: found[key] for key in rest} == approximately({key: expected[key] for key in rest})
        assert page.check() == "ok"
