"""The manual as a site: it builds without a warning, and a fault in a page or a docstring is one."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="the site is built with the dependency group docs")

ROOT = Path(__file__).resolve().parents[1]
RECIPE = (ROOT / "Makefile").read_text().partition("\ndocs:")[2].partition("\n\n")[0]
OPTIONS = re.findall(r"-m sphinx (.*) -c docs \. build/site", RECIPE)[0].split()


def build(source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """Builds as `make docs` does."""
    command = [sys.executable, "-m", "sphinx", *OPTIONS, "-c", str(source / "docs"), str(source), str(output)]
    return subprocess.run(command, cwd=source, capture_output=True, text=True, check=False, timeout=300)


def test_it_builds_without_a_warning(tmp_path):
    done = build(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "docs/index.html" in (tmp_path / "index.html").read_text()
    text = (tmp_path / "docs" / "api" / "edgedl.html").read_text(encoding="utf-8")
    import edgedl

    for name in edgedl.__all__:
        assert f'id="edgedl.{name}"' in text or name == "__version__", name
    for page in (ROOT / "docs" / "decisions").glob("*.md"):
        assert (tmp_path / "docs" / "decisions" / f"{page.stem}.html").is_file()


FAULTS = {
    "a link that leads nowhere": "See [this](nowhere.md).",
    "an anchor that is not there": "See [this](index.md#nowhere).",
    "a page that is in no table of contents": None,
    "a docstring that cannot be read": "```{eval-rst}\n.. autofunction:: broken.function\n```",
    "a name that does not exist": "```{eval-rst}\n.. autofunction:: broken.nothing\n```",
}


@pytest.mark.parametrize("text", FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_an_error(text, tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    shutil.copy(ROOT / "docs" / "conf.py", docs)
    shutil.copytree(ROOT / "docs" / "site", docs / "site")
    (tmp_path / "edgedl").mkdir()
    (tmp_path / "edgedl" / "__init__.py").write_text('__version__ = "0"\n')
    (tmp_path / "broken.py").write_text(
        'def function():\n    """Takes *one.\n\n    Args:\n        one: *two.\n    """\n'
    )
    contents = "" if text is None else "```{toctree}\npage\n```\n"
    (docs / "index.md").write_text(f"# Contents\n\n{contents}")
    (docs / "page.md").write_text(f"# Page\n\n{text or ''}\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "WARNING" in done.stderr
