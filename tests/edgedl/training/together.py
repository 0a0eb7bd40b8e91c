"""Trains a tiny network in processes as a launcher starts them; they are forked, so that torch is imported once.

Writes into the folder that is named: the runs ``one`` and ``many``, the second one begun by two processes, continued by
one and ended by two, and ``statuses.json``. In ``killed`` the second process dies without a word.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from edgedl.training.fit import fit
from edgedl.training.lightning_module import PrepareImages, TaskModule
from edgedl.training.objectives import AgeLearning, AgeObjective
from edgedl.training.options import TrainOptions
from edgedl.training.run import Run
from runtime.errors import EdgedlError
from tests.edgedl.training.tiny import YEARS, tiny_samples

SAMPLES, BATCH = 200, 32
STEPS = SAMPLES // BATCH
OPTIONS = TrainOptions(
    epochs=4,
    batch_size=BATCH,
    lr=0.2,
    ema=0.9,
    clip=1.0,
    l1=1e-4,
    weight_decay=0.01,
    patience=9,
    max_minutes=9,
    threads=1,
)


class Plain(nn.Module):
    """Without batch statistics and dropout, which differ by process."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, len(YEARS))
        )

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images / 128 - 1)


class Ending:
    """Calls `end` at a step, counted from 0."""

    monitor, mode = "MAE", "min"

    def __init__(self, at: int | None, end: Callable[[], None]) -> None:
        self.learning, self.at, self.end, self.steps = AgeLearning(AgeObjective(YEARS)), at, end, 0

    def loss(self, network, batch):
        if self.steps == self.at:
            self.end()
        self.steps += 1
        return self.learning.loss(network, batch)

    def measure(self, network, batch):
        return self.learning.measure(network, batch)


def train(
    path: Path, at: int | None = None, end: Callable[[], None] = lambda: sys.exit(7), *, processes: int = 1
) -> None:
    torch.manual_seed(int(os.environ.get("RANK", "0")))  # the first process's weights are everybody's
    resume = (path / "config.json").exists()
    options = replace(OPTIONS, batch_size=BATCH // processes, resume=resume)
    run = Run.open(path) if resume else Run.create(path, {"task": "age"})
    # The second process has no sample of the set of one.
    validation = {"some": tiny_samples(91, seed=1), "one": tiny_samples(1, seed=2)}
    fit(
        TaskModule(Plain(), Ending(at, end), prepare=PrepareImages(12)), tiny_samples(SAMPLES), validation, run, options
    )


def launch(processes: int, work: Callable[[], None]) -> list[int]:
    """The exit statuses of so many processes, minus the signal where one was killed by it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        for pid in [_fork(r, processes, port, work) for r in range(processes)]
    ]


def _fork(rank: int, processes: int, port: int, work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    if processes > 1:
        told = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": processes,
            "LOCAL_WORLD_SIZE": processes,
            "GROUP_RANK": 0,
        }
        told |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "TORCHELASTIC_RUN_ID": "test",
            "GLOO_SOCKET_IFNAME": "lo",
        }
        os.environ |= {name: str(value) for name, value in told.items()}
    status = 0
    try:
        work()
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    except EdgedlError as error:
        print(error, file=sys.stderr, flush=True)
        status = error.exit_status
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        status = 99
    os._exit(status)


def die_if_second() -> None:
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path) -> None:
    statuses = {
        "one": launch(1, lambda: train(folder / "one")),
        "two, stopped in the second epoch": launch(2, lambda: train(folder / "many", STEPS, processes=2)),
        "one, stopped in the fourth": launch(1, lambda: train(folder / "many", 2 * STEPS)),
        "two again": launch(2, lambda: train(folder / "many", processes=2)),
        "killed": launch(2, lambda: train(folder / "killed", STEPS, die_if_second, processes=2)),
    }
    (folder / "statuses.json").write_text(json.dumps(statuses))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
