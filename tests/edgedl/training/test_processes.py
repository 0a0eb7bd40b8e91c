"""Training in processes of its own: nothing leaves the machine, and several processes train one network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
import torch

from edgedl.training.run import Run

ROOT = Path(__file__).resolve().parents[3]

TRAIN = """
import socket, sys

def refuse(*arguments):
    raise OSError("reached out to " + str(arguments[1:]))

if {alone}:
    socket.socket.connect = socket.socket.connect_ex = refuse
    socket.getaddrinfo = refuse

from edgedl.training.fit import fit
from edgedl.training.options import TrainOptions
from edgedl.training.run import Run
from tests.edgedl.training.tiny import tiny_module, tiny_samples

if __name__ == "__main__":
    run = Run.create(sys.argv[1], {{"task": "age"}})
    options = TrainOptions(epochs={epochs}, batch_size={batch}, lr=0.1, ema=0.9, device="cpu", devices={devices})
    print(fit(tiny_module(), tiny_samples(), tiny_samples(91, seed=1), run, options).best)
"""


def train(tmp_path: Path, name: str, **settings) -> tuple[Run, float, Path]:
    script = tmp_path / f"{name}.py"
    script.write_text(TRAIN.format(**settings))
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "MPLCONFIGDIR": matplotlib.get_cachedir(),  # its font cache, which is no part of a training
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), str(tmp_path / name)],
        env=environment, cwd=home, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Run.open(tmp_path / name), float(done.stdout), home


def test_training_stays_at_home(tmp_path):
    run, best, home = train(tmp_path, "run", alone=True, epochs=1, batch=32, devices=1)
    assert [row["MAE"] for row in run.history()] == [best]
    assert list(home.rglob("*")) == []
    assert {file.name for file in tmp_path.iterdir()} == {"home", "run", "run.py"}


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path):
    """Validation counts each of 91 samples once, and the gradient is the mean over both processes' batches."""
    run, best, _ = train(tmp_path, "two", alone=False, epochs=3, batch=16, devices=2)
    history = run.history()
    assert [row["step"] for row in history] == [6, 12, 18]
    assert best == min(row["MAE"] for row in history)
    assert history[-1]["MAE"] < history[0]["MAE"]

    sys.path.insert(0, str(ROOT))
    from edgedl.training.batches import Batches
    from tests.edgedl.training.tiny import tiny_module, tiny_samples

    module = tiny_module(seed=1)
    module.network.load_state_dict(run.best_weights())
    module.network.eval()
    with torch.no_grad():
        batch = module.prepare(next(iter(Batches(tiny_samples(91, seed=1), 91, train=False))), None, None)
        total, count = module.learning.measure(module.network, batch)["MAE"]
    assert count == 91
    assert total.item() / count == pytest.approx(best, rel=1e-4)
