"""The clients themselves, each in an environment of its own: the examples of docs/service.md, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from runtime.pipelines import load
from service.app import create_app
from tests.public_bundle import public_age_bundle
from tests.service.fake_pipeline import encoded
from tests.service.test_service_docs import serving
from tests.service.v2.test_docs import SECTION

EXAMPLES = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize(("package", "example"), list(zip(["tritonclient[http]", "kserve"], EXAMPLES, strict=True)))
def test_the_example_gives_the_answer_of_the_engine(package: str, example: str, tmp_path: Path) -> None:
    pipeline = load(public_age_bundle(), threads=1)
    expected = pipeline.engines["age"].run({"face": np.zeros((2, 64, 64, 3), np.uint8)})["age"]
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", package], check=True)
    (tmp_path / "photo.jpg").write_bytes(encoded(".jpg"))
    with serving(create_app([pipeline])) as url:
        address = url.removeprefix("http://")
        code = example.replace("127.0.0.1:8000", address)
        done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ages, *faces = done.stdout.splitlines()
    assert np.array_equal(
        np.array(ages.strip("[]").split(), np.float32), np.array(str(expected).strip("[]").split(), np.float32)
    )
    assert faces in (["0"], [])
