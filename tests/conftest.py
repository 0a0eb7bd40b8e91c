"""Fixtures that every test may use."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import hypothesis
import pytest

from tests.preloaded import Preloaded
from tests.public_bundle import public_age_bundle
from tests.torch_tables import make_once

# torch computes with sizes by sympy, which remembers 1,000 results of each function unless told otherwise.
os.environ.setdefault("SYMPY_CACHE_SIZE", "20000")

# A busy machine is slow, not wrong.
hypothesis.settings.register_profile("edgedl", deadline=None)
hypothesis.settings.load_profile("edgedl")

# pytest gives a handler to every logger that does not propagate. As soon as this one of torch's has one, torch writes
# to it all that it traces, and a failing test prints it.
logging.getLogger("torch.__trace").addHandler = lambda handler: None  # type: ignore[method-assign]

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The research data beside the checkout; tests that use it carry the marker `data`."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the research data are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def age_bundle() -> Path:
    """The bundle of the public weights, read only; skips where they cannot be had."""
    return public_age_bundle()


@pytest.fixture(scope="session")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preloaded]:
    """Commands without the seconds of an import of torch; tests that use it are of the group `preloaded`."""
    with closing(Preloaded(tmp_path_factory.mktemp("preloaded"), ROOT)) as process:
        yield process


@pytest.fixture(scope="session")
def portrait_path() -> Path:
    """A real portrait that comes with matplotlib, 512 x 606 pixels."""
    matplotlib = pytest.importorskip("matplotlib", reason="the portrait comes with matplotlib")
    return Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share a fixture of their module stay with one worker, which makes it once."""
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("xdist_group") is None:
            fixtures = item._fixtureinfo.name2fixturedefs.values()
            if any(fixture.scope == "module" for found in fixtures for fixture in found):
                item.add_marker(pytest.mark.xdist_group(item.location[0]))


def pytest_collection_finish() -> None:
    """Prepares this process for its tests: the exports that they make, and millions of objects in few circles.

    What was imported and collected stays to the end. Python need not look through it for garbage again and again.
    """
    if "torch" in sys.modules:
        make_once()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
