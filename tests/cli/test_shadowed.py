"""A project that has a package called as a part of edgedl is: one sentence names it and the part that it hides."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WAYS = {
    "import": "import edgedl; edgedl.load",
    "from import": "from edgedl import Bundle",
    "script": "import sys; from edgedl.cli import main; sys.exit(main(['verify', 'b.edge']))",
    "doctor": "import sys; from edgedl.cli import main; sys.exit(main(['doctor']))",
}


@pytest.mark.parametrize("content", ["", "pipelines = bundle = errors = None\n"], ids=["empty", "with our names"])
@pytest.mark.parametrize("parts", [("runtime",), ("runtime", "service")], ids="+".join)
@pytest.mark.parametrize("way", WAYS)
def test_one_sentence_names_both_folders(tmp_path: Path, way: str, parts: tuple[str, ...], content: str) -> None:
    for part in parts:
        (tmp_path / part).mkdir()
        (tmp_path / part / "__init__.py").write_text(content)
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; {WAYS[way]}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode in (1, 2)
    said = done.stderr.strip().splitlines()[-1]
    for part in parts:
        assert f"{part}: Python finds a foreign package at {tmp_path / part}" in said
        assert f"edgedl's own is at {ROOT / part}" in said
    assert done.stderr.count("Python finds a foreign package") == len(parts), done.stderr


def test_the_doctor_names_a_package_that_hides_another_part(tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").touch()
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; {WAYS['doctor']}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 1
    assert f"service: Python finds a foreign package at {tmp_path / 'service'}" in " ".join(done.stdout.split())
