"""Several processes that train one network: which of them this is, and who of them prepares the training.

A launcher (``torchrun``, or Slurm's ``srun``) starts the same command once for each process. Each of them reads the
options and the data. Only the first one writes the run, prints and logs. It also prepares the training alone, while the
others wait. So what is cached (crops, features, weights) is made once, and the others read it.

Whoever waits asks a key-value store of torch, the one by which the processes find each other later. It holds no data of
the training, only whose turn it is and small results.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from runtime.errors import CheckFailedError, InputError

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

    from edgedl.training.options import TrainOptions

LOOK_S = 0.3
"""Seconds between two looks into the store."""


@dataclass(frozen=True, slots=True)
class Place:
    """This process among those that a launcher started.

    Attributes:
        rank: Its number among all, from 0.
        processes: How many there are.
        local_rank: Its number on its machine, from 0.
        on_machine: How many there are on its machine.
        machine: The machine's number, from 0.
    """

    rank: int
    processes: int
    local_rank: int
    on_machine: int
    machine: int


def launched() -> Place | None:
    """What the launcher says of this process; None without a launcher.

    Raises:
        InputError: Slurm was not told the number of tasks for each node.
    """
    told = os.environ
    if "TORCHELASTIC_RUN_ID" in told:  # torchrun, perhaps started by Slurm
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")
        return Place(*(int(told[name]) for name in names))
    if "SLURM_PROCID" not in told or "SLURM_NTASKS" not in told:
        return None
    if told.get("SLURM_JOB_NAME") in ("bash", "interactive"):  # as Lightning tells a shell from a job
        return None
    processes = int(told["SLURM_NTASKS"])
    if processes > 1 and "SLURM_NTASKS_PER_NODE" not in told:
        raise InputError(f"Slurm starts {processes} tasks; give their number with --ntasks-per-node, not with --ntasks")
    local_rank, on_machine, machine = (
        int(told.get(f"SLURM_{name}", default))
        for name, default in (("LOCALID", 0), ("NTASKS_PER_NODE", 1), ("NODEID", 0))
    )
    return Place(int(told["SLURM_PROCID"]), processes, local_rank, on_machine, machine)


def is_first_process() -> bool:
    """Whether this process is the one that writes, judged by what launchers put into the environment."""
    place = launched()
    if place is not None:
        return place.rank == 0
    # Lightning starts further processes on a machine as the same command with these.
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK"))


def as_launched(options: TrainOptions) -> TrainOptions:
    """Options with the numbers of processes and machines that the launcher started.

    Raises:
        InputError: other numbers were asked for.
    """
    place = launched()
    if place is None:
        return options
    machines = place.processes // place.on_machine
    if options.processes not in (1, place.processes):
        raise InputError(
            f"the launcher started {place.processes} processes, on {machines} machines; leave out --devices and "
            "--num-nodes"
        )
    return replace(options, devices=place.on_machine, num_nodes=machines)


@contextmanager
def in_turn() -> Iterator[None]:
    """Waits until it is this process's turn to prepare: the first one, then the first of each other machine, then all.

    A turn ends with `ready`. Where another process fails before the training begins, this one ends as well.

    Raises:
        SystemExit: another process failed; its own message says why.
    """
    place = launched()
    if place is None or place.processes == 1:
        yield
        return
    try:
        if place.rank:
            _wait(f"{_MACHINE}{place.machine}" if place.local_rank else _FIRST)
        yield
    except BaseException:
        _tell_of_failure()
        raise
    _end_turn(place)


def ready() -> None:
    """Ends the turn of this process, and waits until all are prepared. To be called before each training.

    The process group would not wait for longer than half an hour.
    """
    place = launched()
    if place is None or place.processes == 1:
        return
    _end_turn(place)
    store = _store()
    trainings = -(-store.add(_PREPARED, 1) // place.processes)  # this one included
    while store.add(_PREPARED, 0) < trainings * place.processes:
        _look_again()


def of_first(name: str, make: Callable[[], bytes]) -> bytes:
    """A small result that the first process makes, at most 8 MB; the others wait for it.

    Args:
        name: Of the result, used once in a training.
        make: Called in the first process only.
    """
    place = launched()
    if place is None or place.processes == 1:
        return make()
    key = f"edgedl/made/{name}"
    if place.rank:
        return _wait(key)
    made = make()
    _store().set(key, made)  # type: ignore[arg-type]  # torch declares str and takes bytes
    return made


_FIRST, _MACHINE = "edgedl/first", "edgedl/machine/"
"""Set when the first process is ready, and when the first one of a machine is."""

_PREPARED, _FAILED = "edgedl/prepared", "edgedl/failed"
"""How many are prepared, and set when one has failed."""


def _end_turn(place: Place) -> None:
    keys = ([] if place.rank else [_FIRST]) + ([] if place.local_rank else [f"{_MACHINE}{place.machine}"])
    for key in keys:
        _store().set(key, "ready")


def _tell_of_failure() -> None:
    import torch.distributed

    with suppress(torch.distributed.DistError):  # the store may be gone with the first process
        _store().set(_FAILED, "failed")


def _wait(key: str) -> bytes:
    """The value of a key, as soon as it has one."""
    import torch.distributed

    try:
        while not _store().check([key]):  # not `Store.wait`, during which no signal is answered
            _look_again()
        return bytes(_store().get(key))
    except torch.distributed.DistError as error:
        raise CheckFailedError("the first process of this training has ended; its message says why") from error


def _look_again() -> None:
    """Waits a little.

    Raises:
        SystemExit: another process failed.
    """
    if _store().check([_FAILED]):
        raise SystemExit(CheckFailedError.exit_status)
    time.sleep(LOOK_S)


@lru_cache(maxsize=1)
def _store() -> Store:
    """The store that torchrun keeps, or the one of the first process, where the process group will meet as well."""
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    where = TorchElasticEnvironment() if "TORCHELASTIC_RUN_ID" in os.environ else SLURMEnvironment(auto_requeue=False)
    return TCPStore(
        where.main_address,
        where.main_port,
        is_master=not kept and where.global_rank() == 0,
        wait_for_workers=False,
        multi_tenant=True,
    )
