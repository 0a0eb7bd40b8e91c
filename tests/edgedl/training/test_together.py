"""Several processes train as one with the larger batch, whatever their number, and end when one of them dies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgedl.training.run import Run

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.xdist_group("together")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.edgedl.training.together", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder / "stderr").write_text(done.stderr)
    return folder


def test_two_processes_give_the_losses_of_one_with_the_doubled_batch(trained):
    """SGD with weight decay, l1, clipping and averaged weights; stopped twice, continued by one, then by two.

    The validation sets have 91 samples, an odd number, and 1, so that one process has none.
    """
    one, many = (Run.open(trained / name).history() for name in ("one", "many"))
    assert [row["step"] for row in one] == [row["step"] for row in many] == [6, 12, 18, 24]
    assert one[-1]["train_loss"] < 0.8 * one[0]["train_loss"]
    for a, b in zip(one, many, strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == pytest.approx(
            {k: v for k, v in b.items() if k != "seconds"}, rel=1e-5, abs=1e-5
        )


def test_each_process_ends_with_its_status(trained):
    statuses = json.loads((trained / "statuses.json").read_text())
    assert statuses == {
        "one": [0],
        "two, stopped in the second epoch": [7, 7],
        "one, stopped in the fourth": [7],
        "two again": [0, 0],
        "killed": [1, -9],
    }


def test_the_death_of_a_process_is_told(trained):
    """Without a launcher that would end the other one."""
    assert (trained / "stderr").read_text().splitlines() == [
        "another process of this training has died; its own message, or the launcher's, says why"
    ]
    assert len(Run.open(trained / "killed").history()) == 1, "the checkpoint before is whole"
