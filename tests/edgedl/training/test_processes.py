"""Training in processes of its own: nothing leaves the machine, and several processes train one network.

`test_together` holds the same of a tiny network, in the ordinary suite.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
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


# Batch statistics differ by process, so they stay as they are.
COMMAND = """
import sys
from torch import nn
from edgedl.cli import main

nn.BatchNorm2d.train = lambda self, mode=True: nn.Module.train(self, False)
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""
SAME = {
    "timer": ["timer", "--lr", "0.01", "--epochs", "4"],
    "digits": ["digits", "--model", "softmax", "--lr", "0.05", "--epochs", "60"],
    "age": ["age", "--lr", "0.01", "--epochs", "4", "--dropout", "0", "--faces", "400"],
}


def start(folder: Path, processes: int, words: list[str]) -> subprocess.Popen[str]:
    script = folder / "command.py"
    script.write_text(COMMAND)
    command = [sys.executable, str(script), "train", *words, "--optimiser", "sgd", "--no-augment"]
    if processes > 1:
        command[1:1] = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def epochs_of(run: Path) -> int:
    return len(Run.open(run).history()) if (run / "config.json").exists() else 0


def kill_after(epochs: int, run: Path, process: subprocess.Popen[str]) -> str:
    """Kills the last process of a training that has ended so many epochs; what all of them said."""
    while epochs_of(run) < epochs:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]) if children else process.pid, signal.SIGKILL)
    began = time.monotonic()
    said = process.communicate(timeout=60)[0]
    assert process.returncode == (1 if children else -signal.SIGKILL)
    assert time.monotonic() - began < 60
    return said


@pytest.mark.slow
@pytest.mark.timeout(1800)  # five trainings, on a machine that may be busy
@pytest.mark.parametrize("task", SAME)
def test_torchrun_gives_the_losses_of_one_process(tmp_path, task):
    """Two processes, killed; one, killed; two to the end: the losses of one with the doubled batch."""
    words = SAME[task]
    one = start(tmp_path, 1, [*words, "--batch-size", "32", "-o", "one"])
    said = one.communicate(timeout=600)[0]
    assert one.returncode == 0, said
    run = tmp_path / "many"
    said = kill_after(1, run, start(tmp_path, 2, [*words, "--batch-size", "16", "-o", "many"]))
    assert "SIGKILL" in said
    assert said.count("edgedl: epoch 1/") == 1, "only the first process speaks"
    first = epochs_of(run)
    kill_after(first + 1, run, start(tmp_path, 1, [*words, "-o", "many", "--resume"]))
    second = epochs_of(run)
    assert first < second < len(Run.open(tmp_path / "one").history()), "it was too fast for the test"
    rest = start(tmp_path, 2, [*words, "-o", "many", "--resume"])
    said = rest.communicate(timeout=600)[0]
    assert rest.returncode == 0, said
    assert said.count("run  many") == 1
    whole, parts = (Run.open(tmp_path / name).history() for name in ("one", "many"))
    assert len(whole) == len(parts)
    assert min(row["train_loss"] for row in whole) < whole[0]["train_loss"], "it learns"
    for a, b in zip(whole, parts, strict=True):
        assert a["step"] == b["step"]
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-5, abs=1e-5)


@pytest.mark.slow
def test_torchrun_names_the_run_once(tmp_path):
    training = start(tmp_path, 2, ["digits", "--model", "softmax", "--epochs", "1", "--json"])
    said = training.communicate(timeout=300)[0]
    assert training.returncode == 0, said
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["digits-1"]
    assert said.count('"run": "runs/digits-1"') == 1
    again = start(tmp_path, 2, ["digits", "--epochs", "1", "-o", "runs/digits-1"])
    said = again.communicate(timeout=300)[0]
    assert again.returncode == 1
    assert said.count("already holds a run") == 1


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
def test_a_process_for_each_gpu(tmp_path, bf16):
    """NCCL between all GPUs of this machine; with one of them it is the same path but for the communication."""
    words = ["digits", "--model", "cnn", "--epochs", "3", "--device", "gpu", "--bf16" if bf16 else "--no-bf16"]
    training = start(tmp_path, torch.cuda.device_count(), [*words, "-o", "run"])
    said = training.communicate(timeout=600)[0]
    assert training.returncode == 0, said
    history = Run.open(tmp_path / "run").history()
    assert history[-1]["train_loss"] < history[0]["train_loss"]
