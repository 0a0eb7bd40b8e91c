"""What a first answer needs, and what it does without."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime import engine
from runtime.errors import BundleError
from runtime.pipelines import load


def test_a_first_answer_does_without_what_only_others_need(age_bundle: Path, portrait_path: Path):
    """Each of these would make a cold start longer."""
    unneeded = (
        "av", "email", "html", "importlib.metadata", "runtime.archive", "runtime.budget", "runtime.door",
        "runtime.example", "runtime.lines", "runtime.media.clips", "runtime.media.frames", "runtime.media.png",
        "runtime.media.video", "runtime.npy", "runtime.proofs", "runtime.release", "numpy.ma", "runtime.occlusion",
        "secrets", "shutil", "subprocess", "zipfile",
    )  # fmt: skip
    code = (
        "import sys, edgedl\n"
        "with edgedl.load(sys.argv[1], threads=1) as age: assert age.faces(sys.argv[2])\n"
        "print(*sorted(set(sys.argv[3:]) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n{code}",
         str(age_bundle), str(portrait_path), *unneeded],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == []


def test_a_portrait_is_answered_without_the_model_for_groups(
    age_bundle: Path, portrait_path: Path, monkeypatch: pytest.MonkeyPatch
):
    opened = []

    def open_session(graph: bytes, *rest: Any) -> Any:
        opened.append(len(graph))
        return original(graph, *rest)

    original = engine.open_session
    monkeypatch.setattr(engine, "open_session", open_session)
    with load(age_bundle, threads=1) as age:
        sizes = {name: spec.variants["fp32"].bytes for name, spec in age.bundle.manifest.models.items()}
        assert len(age.predict(portrait_path)["faces"]) == 1
        assert opened == [sizes["faces"], sizes["age"]]
        age.predict(portrait_path, smallest=0.02)
        assert opened == [sizes["faces"], sizes["age"], sizes["crowd"]]


def test_a_damaged_graph_is_refused_before_it_is_needed(age_bundle: Path, tmp_path: Path):
    bundle = tmp_path / "age.edge"
    shutil.copytree(age_bundle, bundle)
    (bundle / "crowd.onnx").chmod(0o644)
    with (bundle / "crowd.onnx").open("r+b") as graph:
        graph.seek(1_000_000)
        byte = graph.read(1)
        graph.seek(-1, 1)
        graph.write(bytes([byte[0] ^ 1]))
    with pytest.raises(BundleError, match=r"crowd\.onnx has sha256"):
        load(bundle, threads=1)
