"""CONTRIBUTING.md, followed to the letter: its room and its registry line make a task of a copy of the packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from tests.preloaded import LIBRARIES, Preloaded
from tests.test_docs import ROOT, Reader, blocks

PAGE = ROOT / "CONTRIBUTING.md"
PACKAGES = ("edgedl", "exporters", "runtime", "service")

pytestmark = pytest.mark.xdist_group("contributing")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages in which every block of the page has been followed."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    with closing(Preloaded(tmp_path_factory.mktemp("preloaded"), folder, LIBRARIES)) as preloaded:
        reader = Reader(PAGE.name, folder, preloaded.environment)
        for block in blocks(PAGE.read_text(encoding="utf-8")):
            if not block.ordered("reason"):
                reader.read(block)
    return folder


def test_one_room_and_one_line_are_all_that_is_added(checkout):
    added = {
        str(path.relative_to(checkout))
        for name in PACKAGES
        for path in (checkout / name).rglob("*.py")
        if not (ROOT / path.relative_to(checkout)).is_file()
    }
    assert {str(Path(name).parent) for name in added} == {"edgedl/tasks/parity"}
    changed = [
        str(path.relative_to(ROOT))
        for name in PACKAGES
        for path in (ROOT / name).rglob("*.py")
        if path.read_bytes() != (checkout / path.relative_to(ROOT)).read_bytes()
    ]
    assert changed == ["edgedl/tasks/__init__.py"]
    before = (ROOT / changed[0]).read_text().splitlines()
    assert len((checkout / changed[0]).read_text().splitlines()) == len(before) + 1


def test_the_bundle_tells_parity_on_longer_sequences(checkout):
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-m", "edgedl", "evaluate", "parity.edge", "--json"]
    done = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout)["metrics"]["accuracy"] > 0.9


def test_it_is_served(checkout):
    """The page's own request, against the page's own bundle."""
    (asked,) = [block.code for block in blocks(PAGE.read_text(encoding="utf-8")) if "edgedl serve" in block.code]
    body = asked.rpartition("-d '")[2].rstrip("'\n")
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-m", "edgedl", "serve", "parity.edge", "--port", "0"]
    with subprocess.Popen(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split(" at ")[1].strip()
            request = urllib.request.Request(
                f"{url}/v1/parity", body.encode(), {"Content-Type": "application/json"}, method="POST"
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                outputs = json.loads(answer.read())["results"][0]["outputs"]
        finally:
            server.terminate()
    assert [round(value) for value in outputs["odd"][0]] == [1, 1, 0, 1]
