"""The page of a service that asks for a key: it asks the person, again after a wrong one, and then works."""

from __future__ import annotations

import hashlib

import pytest

from service.app import create_app
from service.keys import Keys
from tests.service.fake_pipeline import FakePipeline

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver

from tests.service import browser as chromium

pytestmark = chromium.MARKS


class Page(chromium.Page):
    """The page, which waits for a key before it is ready."""

    def wait(self, condition: object, seconds: float = 30) -> object:
        if not self.seen and self.find("body").get_attribute("data-state") != "ready":
            self.seen = True
            for key, words in (("wrong", "answers only those who have a key"), ("edgedl_example", "does not know")):
                super().wait(lambda words=words: [one for one in self.all("dialog[open]") if words in one.text])
                assert self.find("dialog").accessible_name == "A key is needed"
                assert self.find("dialog input").accessible_name == "Key"
                self.find("dialog input").send_keys(f"{key}\n")
        return super().wait(condition, seconds)

    seen = False


def test_the_page_asks_for_the_key(browser: webdriver.Chrome) -> None:
    keys = Keys((("person", hashlib.sha256(b"edgedl_example").digest()),))
    with (
        chromium.serving(create_app([FakePipeline()], keys=keys)) as url,
        chromium.opened(browser, url, Page) as page,
    ):
        assert page.find("#title").text
        assert page.find("#bundle-name").text == "age"
        assert not page.all("dialog")
        assert page.run("return [localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
