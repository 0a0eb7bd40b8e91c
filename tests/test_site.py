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
    "link": ("See [this](nowhere.md).", "'myst' cross-reference target not found: 'nowhere.md'"),
    "anchor": ("See [this](../docs/index.md#nowhere).", "local id not found in doc 'docs/index': 'nowhere'"),
    "contents": ("", "document isn't included in any toctree"),
    "docstring": ("```{eval-rst}\n.. autofunction:: broken.function\n```", "Inline emphasis start-string without"),
    "name": ("```{eval-rst}\n.. autofunction:: broken.nothing\n```", "failed to import 'nothing' from module 'broken'"),
}


def test_a_fault_is_an_error(tmp_path):
    """Each fault on a page of its own, in one build: what Sphinx says of each page."""
    docs = tmp_path / "docs"
    docs.mkdir()
    shutil.copy(ROOT / "docs" / "conf.py", docs)
    shutil.copytree(ROOT / "docs" / "site", docs / "site")
    (tmp_path / "edgedl").mkdir()
    (tmp_path / "edgedl" / "__init__.py").write_text('__version__ = "0"\n')
    (tmp_path / "broken.py").write_text(
        'def function():\n    """Takes *one.\n\n    Args:\n        one: *two.\n    """\n'
    )
    contents = "\n".join(name for name in FAULTS if name != "contents")
    (docs / "index.md").write_text(f"# Contents\n\n```{{toctree}}\n{contents}\n```\n")
    for name, (text, _) in FAULTS.items():
        (docs / f"{name}.md").write_text(f"# Page\n\n{text}\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    for name, (_, said) in FAULTS.items():
        lines = [line for line in done.stderr.splitlines() if said in line]
        assert lines, f"{name}: {done.stderr}"
        for line in lines:
            assert {"docstring": "broken.py", "name": "'broken'"}.get(name, f"{name}.md") in line
            assert "WARNING: " in line
