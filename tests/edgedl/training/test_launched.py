"""What a process knows of the launcher that started it, whose turn it is, and what it is silent about."""

from __future__ import annotations

import argparse
import io
import logging
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed

from edgedl.cli.output import Output
from edgedl.cli.train import _as_one
from edgedl.tasks import task
from edgedl.tasks.chars.batches import TextBatches
from edgedl.tasks.timer.config import TimerConfig, recipe
from edgedl.tasks.timer.objective import TimerBatches
from edgedl.training import batches, processes
from edgedl.training.arguments import train_options
from edgedl.training.batches import Batches, Samples
from edgedl.training.lightning_module import mean_over_processes
from edgedl.training.options import TrainOptions
from edgedl.training.processes import Place, as_launched, in_turn, is_first_process, launched, of_first, ready
from edgedl.training.reasons import raised_in_child, reasons
from runtime.errors import CheckFailedError, InputError

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1",
}  # fmt: skip
SLURM = {
    "SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODEID": "1",
    "SLURM_JOB_NAME": "train",
}  # fmt: skip


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in (*TORCHRUN, *SLURM, "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)


def told(monkeypatch, *variables: dict[str, str]) -> None:
    for some in variables:
        for name, value in some.items():
            monkeypatch.setenv(name, value)


def as_process(monkeypatch, rank: int, world: int, store: torch.distributed.Store | None = None) -> None:
    """This process as one of so many on one machine."""
    told(monkeypatch, TORCHRUN, {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)})
    told(monkeypatch, {"LOCAL_WORLD_SIZE": str(world), "GROUP_RANK": "0"})
    monkeypatch.setattr(processes, "_store", lambda: store)


@pytest.mark.parametrize("variables", [TORCHRUN, SLURM], ids=["torchrun", "srun"])
def test_a_launcher_says_where_a_process_stands(monkeypatch, variables):
    told(monkeypatch, variables)
    assert launched() == Place(rank=3, processes=4, local_rank=1, on_machine=2, machine=1)
    assert not is_first_process()
    options = as_launched(TrainOptions())
    assert (options.devices, options.num_nodes, options.processes) == (2, 2, 4)
    with pytest.raises(InputError, match="the launcher started 4 processes, on 2 machines; leave out --devices"):
        as_launched(replace(options, devices=3, num_nodes=1))


def test_without_a_launcher_the_options_count(monkeypatch):
    assert launched() is None
    assert is_first_process()
    assert as_launched(TrainOptions(devices=2)).processes == 2
    monkeypatch.setenv("LOCAL_RANK", "1")  # started by Lightning
    assert not is_first_process()


def test_the_first_of_torchrun_may_be_any_task_of_slurm(monkeypatch):
    told(monkeypatch, SLURM, TORCHRUN, {"RANK": "0"})
    assert is_first_process()


def test_a_shell_on_a_cluster_is_no_training(monkeypatch):
    told(monkeypatch, SLURM, {"SLURM_JOB_NAME": "interactive"})
    assert launched() is None


def test_slurm_has_to_tell_the_tasks_of_each_node(monkeypatch):
    told(monkeypatch, SLURM)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(InputError, match="4 tasks; give their number with --ntasks-per-node"):
        launched()


def test_the_first_process_prepares_before_the_others(monkeypatch):
    """And waits for them with the training, whose process group has less patience."""
    store, begun = torch.distributed.HashStore(), []

    def second(seconds: float) -> None:
        """What the second process does while the first one waits."""
        assert not begun, "each has prepared"
        as_process(monkeypatch, 1, 2, store)
        with in_turn():
            assert of_first("folder", lambda: pytest.fail("made twice")) == b"runs/1"
            ready()
            begun.append(1)
        as_process(monkeypatch, 0, 2, store)

    monkeypatch.setattr(processes.time, "sleep", second)
    as_process(monkeypatch, 0, 2, store)
    with in_turn():
        assert of_first("folder", lambda: b"runs/1") == b"runs/1"
        assert not store.check(["edgedl/machine/0"])
        ready()
        begun.append(0)
    assert begun == [1, 0]


def test_each_machine_has_a_first_process(monkeypatch):
    """On two machines of two, with ranks dealt out in turns: 1 waits for 0, then 2 on its machine, and 3 for 1."""
    store, order = torch.distributed.HashStore(), []
    for rank in (0, 1, 3, 2):
        as_process(monkeypatch, rank, 4, store)
        told(monkeypatch, {"LOCAL_RANK": str(rank // 2), "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": str(rank % 2)})
        monkeypatch.setattr(processes.time, "sleep", lambda seconds, rank=rank: pytest.fail(f"{rank} has to wait"))
        with in_turn():
            order.append(rank)
            keys = [f"edgedl/machine/{machine}" for machine in range(2)]
            assert [store.check([key]) for key in keys] == [rank > 0, rank > 1]
    assert order == [0, 1, 3, 2]


@pytest.mark.parametrize("waits", ["for its turn", "for the others"])
def test_where_a_process_fails_the_others_end_without_a_word(monkeypatch, waits):
    store = torch.distributed.HashStore()
    as_process(monkeypatch, 0, 2, store)
    if waits == "for the others":
        with in_turn():
            pass
    first, second = (0, 1) if waits == "for its turn" else (1, 0)
    as_process(monkeypatch, first, 2, store)
    with pytest.raises(InputError), in_turn():
        raise InputError("no such data")
    as_process(monkeypatch, second, 2, store)
    with pytest.raises(SystemExit) as leaving, in_turn():
        ready()
    assert leaving.value.code == 1


def test_only_the_first_process_speaks(monkeypatch, caplog):
    out = Output(io.StringIO(), as_json=False)
    stream = out.stream
    as_process(monkeypatch, 1, 2)
    with pytest.raises(InputError, match=r"^process 1: its disk is full$"), _as_one(out):
        _speak_and_fail(out)
    assert stream.getvalue() == ""
    assert caplog.text == ""
    assert logging.root.manager.disable == logging.NOTSET


def _speak_and_fail(out: Output) -> None:
    out.text("run  r")
    logging.getLogger("edgedl.training").warning("a warning")
    warnings.warn("another", UserWarning, stacklevel=1)
    raise InputError("its disk is full")


def options_of(words: list[str], begun: TimerConfig | None = None) -> TrainOptions:
    parser = argparse.ArgumentParser()
    task("timer").add_train_arguments(parser)
    args = parser.parse_args(words)
    return train_options(args, begun.begun_with(recipe("elman")) if begun else recipe("elman"))


def test_a_training_goes_on_with_the_samples_of_a_step(monkeypatch):
    """Begun by two processes, continued by one, by four, and by three, who cannot."""
    args = argparse.Namespace(network=None, hidden=None, scale=None, steps=None, truncate=None, self_weight=None)
    as_process(monkeypatch, 0, 2)
    options = options_of(["--batch-size", "6"])
    begun = TimerConfig.asked(args, options)
    assert begun.training["processes"] == 2
    assert begun.data["n"] == options.epochs * 100 * 12
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    assert options_of(["--resume"], begun).batch_size == 12
    assert options_of(["--resume", "--batch-size", "5"], begun).batch_size == 5
    as_process(monkeypatch, 0, 4)
    assert options_of(["--resume"], begun).batch_size == 3
    as_process(monkeypatch, 0, 5)
    with pytest.raises(InputError, match="12 samples a step, which 5 processes cannot share out evenly"):
        options_of(["--resume"], begun)


SAMPLES = Samples({"image": [np.arange(50), 100 + np.arange(50)], "row": np.arange(50)})
TEXT = np.arange(1000) % 7


@pytest.mark.parametrize(
    ("make", "rows"),
    [
        (lambda size: Batches(SAMPLES, size, train=True, seed=5), "row"),
        (lambda size: TimerBatches(10, 40, size, 3, seed=5), "targets"),
        (lambda size: TextBatches(TEXT, 20, size, train=True, seed=5), "tokens"),
    ],
    ids=["samples", "drawn", "text"],
)
def test_the_batches_of_two_processes_are_those_of_one(monkeypatch, make, rows):
    """Views that are drawn by chance included. A source is made before the processes know of each other."""
    one = list(make(8))
    source, halves = make(4), []
    for rank in range(2):
        for module in (batches, __import__(TextBatches.__module__, fromlist=["rank_and_world"])):
            monkeypatch.setattr(module, "rank_and_world", lambda rank=rank: (rank, 2))
        halves.append(list(source))
    assert len(one) == len(halves[0]) == len(halves[1]) > 1
    for whole, first, second in zip(one, *halves, strict=True):
        for name, column in whole.items():
            if column.ndim:
                together = torch.cat([first[name], second[name]])
                assert sorted(map(str, together.tolist())) == sorted(map(str, column.tolist())), name
    assert not torch.equal(halves[0][0][rows], halves[1][0][rows])


def test_a_process_without_validation_samples_leaves_the_mean_to_the_others():
    sums = [{"MAE": (6.0, 2.0), "exact": (1.0, 1.0)}, {}, {"MAE": (4.0, 3.0)}]
    assert mean_over_processes(sums) == {"MAE": 2.0, "exact": 1.0}


def test_the_error_of_a_spawned_process_is_the_error():
    error = raised_in_child("Traceback:\n  File x\nruntime.errors.CheckFailedError: the loss became nan\n")
    assert isinstance(error, CheckFailedError)
    assert str(error) == "the loss became nan"
    assert raised_in_child("Traceback:\nValueError: 3") is None


def test_a_lost_connection_is_the_death_of_another_process(monkeypatch):
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:5")
    with pytest.raises(RuntimeError, match="gloo"), reasons():
        raise lost
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(CheckFailedError, match="another process of this training has died"), reasons():
        raise lost
    with pytest.raises(RuntimeError, match="shapes"), reasons():
        raise RuntimeError("shapes do not fit")


@pytest.mark.parametrize("name", ["sgd", "gradients"])
def test_what_looks_into_one_process_refuses_a_launcher(monkeypatch, tmp_path, name):
    as_process(monkeypatch, 0, 2)
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    task(name).add_train_arguments(parser)
    with pytest.raises(InputError, match="in one process; leave out --devices and --num-nodes, and the launcher"):
        task(name).learn(parser.parse_args([]), tmp_path / "run")
