"""Installs the oldest packages that pyproject.toml admits for the device and runs the runtime's and service's tests.

Run by ``make test-lowest``. The tests themselves build ONNX graphs, so onnx and pytest are installed too, as new as the
oldest numpy lets them be; what is under test (numpy, onnxruntime, OpenCV, Flask and the rest of the extras) is old.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("cpu", "media", "video", "serve", "sign")
# What the tests import beyond the packages under test.
TOOLS = ("pytest>=8.3", "pytest-timeout>=2.3", "hypothesis>=6.100", "onnx", "pillow", "scipy")


def lower_bounds() -> list[str]:
    """``name==version`` for each requirement ``name>=version`` of the base and the device's extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in EXTRAS:
        wanted += project["optional-dependencies"][extra]
    lowest = [line.partition(",")[0] for line in wanted if not line.startswith("edgedl[")]
    pairs = (re.fullmatch(r"([\w.-]+)(?:\[.*\])?>=([\w.]+)", line) for line in lowest)
    return [f"{pair[1]}=={pair[2]}" for pair in pairs if pair]


def main(arguments: list[str]) -> int:
    """Returns pytest's exit status; arguments after the script's name go to pytest."""
    bounds = lower_bounds()
    print("\n".join(bounds), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "venv" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", Path(folder) / "venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *bounds, *TOOLS], check=True)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        chosen = arguments or [
            "tests/runtime",
            "tests/service",
            "tests/cli/test_failures.py",
            "tests/cli/test_output.py",
        ]
        tests = ["-p", "no:cacheprovider", "-m", "not slow and not targets and not gpu and not browser", *chosen]
        return subprocess.run([python, "-m", "pytest", *tests], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
