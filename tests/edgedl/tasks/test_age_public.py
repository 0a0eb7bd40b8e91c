"""What decides whether the public bundle is proven anew: the code that makes it, all of it and no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgedl.tasks.age import public as age_public

IMPORTED_BY_MAKING_IT = """
import sys
from edgedl.tasks.age import public as age_public
packages = {name for name, module in sys.modules.items() if hasattr(module, "__path__")}
print(*(name for name in sys.modules if name.startswith(("edgedl.", "exporters.")) and name not in packages))
"""


def test_every_module_that_python_imports_for_it_is_among_them():
    """Python itself is the oracle: what it has imported must have been found in the source."""
    done = subprocess.run([sys.executable, "-c", IMPORTED_BY_MAKING_IT], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {"edgedl.tasks.age.network.blazeface", "edgedl.data.portrait_canvas", "exporters.parity"} <= imported
    assert imported <= set(age_public.deciding_code())


@pytest.mark.parametrize("module", ["edgedl.nn.age", "edgedl.tasks.age.network.detector",
                                    "edgedl.tasks.age.network.resnet10", "exporters.image",
                                    "edgedl.tasks.age.weights.blazeface", "edgedl.data.portrait_features"])  # fmt: skip
def test_what_it_is_made_of_decides(module):
    assert module in age_public.deciding_code()


@pytest.mark.parametrize("module", ["edgedl.tasks.age.network.compact", "edgedl.tasks.age.training",
                                    "edgedl.training.fit", "edgedl.tasks.age.data.utkface",
                                    "edgedl.cli.pull"])  # fmt: skip
def test_what_it_has_nothing_to_do_with_does_not(module):
    assert module not in age_public.deciding_code()


def test_a_changed_module_changes_the_digest(monkeypatch, tmp_path):
    before = age_public._code_digest()
    assert age_public._code_digest() == before
    files = age_public.deciding_code()
    changed = tmp_path / "detector.py"
    changed.write_bytes(files["edgedl.tasks.age.network.detector"].read_bytes() + b"\n")
    monkeypatch.setattr(
        age_public, "deciding_code", lambda: files | {"edgedl.tasks.age.network.detector": Path(changed)}
    )
    assert age_public._code_digest() != before
