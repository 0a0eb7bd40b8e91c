"""The notebooks run from the first cell to the last, and are stored without outputs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.preloaded import Preloaded

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

pytestmark = pytest.mark.xdist_group("preloaded")  # with the pages of the manual


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def run(code: str, preloaded: Preloaded, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**preloaded.environment, "MPLBACKEND": "Agg", "PYTHONWARNINGS": "ignore"}
    command = [preloaded.bin / "python", "-c", code]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, preloaded, tmp_path, request):
    if path.stem == "age_from_a_photo":
        request.getfixturevalue("age_bundle")  # skips where the public weights cannot be had
    code = "\n\n".join("".join(cell["source"]) for cell in cells(path, "code"))
    done = run(code, preloaded, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_cell_that_fails_is_noticed(preloaded, tmp_path):
    assert run("raise SystemExit(1)", preloaded, tmp_path).returncode == 1
    assert run("assert False, 'no'", preloaded, tmp_path).returncode == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_a_notebook_without_outputs(path):
    document = json.loads(path.read_text(encoding="utf-8"))
    assert (document["nbformat"], document["metadata"]["kernelspec"]["name"]) == (4, "python3")
    names = [cell["id"] for cell in document["cells"]]
    assert len(names) == len(set(names))
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells(path, "code"))


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["age_from_a_photo", "your_network"]
