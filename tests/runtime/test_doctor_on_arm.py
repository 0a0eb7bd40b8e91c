"""edgedl itself on an emulated ARM processor: 64 bits with the wheels, 32 bits with Debian's packages."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.bundles import SCALE, write_scale_bundle
from tests.runtime.test_external import in_initializer, tensor

arm = pytest.importorskip("exporters.targets.arm", reason="there are no ARM targets in this tree")
from exporters.targets.base import TargetError  # noqa: E402 - as above

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = [pytest.mark.targets, pytest.mark.timeout(900)]


@pytest.fixture(params=["arm64/cortex-a72", "armhf"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Runs the Python of a target with this tree, and words after it."""
    target = arm.ArmTarget(request.param)
    try:
        target.set_up()
    except TargetError as error:
        pytest.skip(str(error))
    command = [*target.command()]
    python = command[: command.index("-c")]
    environment = dict(target.environment() or os.environ)
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), environment["PYTHONPATH"]))

    def started(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*python, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == status, done.stdout + done.stderr[-2000:]
        return done

    return started


def test_doctor_proves_a_bundle_and_arrays_are_answered(run: Run, tmp_path: Path) -> None:
    bundle = write_scale_bundle(tmp_path / "scale.edge").path
    report = json.loads(run("-m", "edgedl", "doctor", str(bundle), "--reprove", "--json").stdout)
    rows = {row["name"]: row for row in report["checks"]}
    assert report["ok"] is True
    assert rows["device cpu"]["found"] == "CPUExecutionProvider starts"
    assert "4 recorded cases" in rows["bundle scale"]["found"]
    proof = json.loads((bundle / "proofs.json").read_text())[-1]
    assert (proof["target"], proof["processor_class"], proof["ok"]) == ("here", "arm", True)
    np.save(tmp_path / "x.npy", np.ones((1, 3), np.float32))
    answer = json.loads(run("-m", "edgedl", "predict", str(bundle), "x.npy", "--json").stdout)
    assert answer["results"][0]["outputs"]["y"] == [SCALE.tolist()]


def test_a_graph_in_memory_reads_no_file_there(run: Run, tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.eye(3, dtype=np.float32).tobytes())
    weights = tensor(True)
    weights.external_data[0].value = str(secret)
    (tmp_path / "leak.onnx").write_bytes(in_initializer(weights).SerializeToString())
    code = "from runtime.engine import Engine; Engine(open('leak.onnx', 'rb').read(), threads=1)"
    assert "BundleError" in run("-c", code, status=1).stderr
