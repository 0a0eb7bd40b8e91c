"""A service of bundles whose answers a test can work out by hand."""

from __future__ import annotations

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.app import create_app
from tests.bundles import write_scale_bundle, write_sums_bundle
from tests.chars import write_chars_bundle
from tests.service.fake_pipeline import FakePipeline
from tests.service.v2.echo import write_echo_bundle


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    folder = tmp_path_factory.mktemp("bundles")
    bundles = [
        write_echo_bundle(folder / "echo.edge"),
        write_echo_bundle(folder / "later.edge", "1.10"),
        write_scale_bundle(folder / "scale.edge"),
        write_sums_bundle(folder / "sums.edge"),
        write_chars_bundle(folder / "chars.edge"),
        FakePipeline(),
    ]
    return create_app(bundles, threads=1, max_bytes=200_000, max_pixels=1_000_000, max_images=4)


@pytest.fixture
def v2(service: Flask) -> FlaskClient:
    return service.test_client()
