"""What a first answer needs, and what it does without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_first_answer_does_without_what_only_others_need(age_bundle: Path, portrait_path: Path):
    """Each of these would make a cold start longer."""
    unneeded = (
        "av", "email", "html", "importlib.metadata", "runtime.door", "runtime.media.clips", "runtime.media.video",
        "numpy.ma", "runtime.occlusion", "secrets", "shutil", "subprocess", "zipfile",
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
