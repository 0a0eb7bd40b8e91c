"""The page says plainly that inputs are kept, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.app import create_app
from tests.service.fake_pipeline import FakePipeline

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver

from tests.service import browser as chromium
from tests.service.accessibility import findings

pytestmark = chromium.MARKS

SAID = "This server keeps a sample of what is sent to it, with the answers."


@pytest.mark.parametrize("recorded", [True, False], ids=["recording", "not recording"])
def test_the_page_says_whether_inputs_are_kept(browser: webdriver.Chrome, tmp_path: Path, recorded: bool) -> None:
    app = create_app([FakePipeline()], record=tmp_path / "kept" if recorded else None)
    with chromium.serving(app) as url, chromium.opened(browser, url, chromium.Page) as page:
        kept = page.find("#kept")
        assert kept.is_displayed() is recorded
        assert kept.text == (SAID if recorded else "")
        assert ("not kept" in page.find("#notice").text) is not recorded
        assert findings(page) == []
    recorder = app.extensions["edgedl.parts"].recorder
    if recorder is not None:
        recorder.close()
