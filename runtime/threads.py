"""How many threads this process may really use.

ONNX Runtime sizes its pool from the host. In a container or under ``taskset`` that is too many: threads wait for each
other on too few cores, or the kernel stops all of them for the rest of the period once the quota is spent.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class ThreadBudget(NamedTuple):
    """What limits the threads here, and the number chosen from it.

    ``host`` counts logical processors, ``affinity`` those that this process may run on, ``cores`` the physical cores
    among them, ``quota`` is the processor time that the control group allows (in processors; None: no limit).
    """

    host: int
    affinity: int
    cores: int
    quota: float | None
    chosen: int


def default_threads() -> int:
    """Threads for one inference: physical cores that this process may use, and no more than its quota."""
    return thread_budget().chosen


def thread_budget(root: Path = Path("/"), allowed: Iterable[int] | None = None) -> ThreadBudget:
    """Reads affinity, topology and quota.

    Args:
        root: where ``proc`` and ``sys`` lie; another folder in tests.
        allowed: the processors that may be used; None asks the system.
    """
    processors = frozenset(_affinity() if allowed is None else allowed) or frozenset((0,))
    cores = _physical_cores(root, processors)
    quota = cpu_quota(root)
    # Rounded down: 1.5 processors with two threads means that both are stopped for a quarter of every period.
    chosen = cores if quota is None else min(cores, int(quota))
    return ThreadBudget(os.cpu_count() or 1, len(processors), cores, quota, max(1, chosen))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The tightest processor quota of this process's control groups and all above them, in processors.

    Reads version 2 (``cpu.max``) and version 1 (``cpu.cfs_quota_us``); both may be mounted at once. None: no limit.
    """
    mount = root / "sys/fs/cgroup"
    quotas: list[float] = []
    for controllers, group in _memberships(root):
        if not controllers:
            for base in (mount, mount / "unified"):
                quotas += _present(_quota_v2(base / folder) for folder in _upwards(group))
        elif "cpu" in controllers:
            for base in (mount / ",".join(controllers), mount / "cpu", mount / "cpu,cpuacct"):
                quotas += _present(_quota_v1(base / folder) for folder in _upwards(group))
    return min(quotas, default=None)


def _affinity() -> Iterable[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def _physical_cores(root: Path, processors: frozenset[int]) -> int:
    """Two hyper-threads of one core share its arithmetic units; a second thread there slows both."""
    siblings = set()
    for processor in processors:
        file = root / f"sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list"
        siblings.add(_read(file) or f"alone {processor}")
    return len(siblings)


def _memberships(root: Path) -> Iterator[tuple[list[str], str]]:
    """Lines of ``/proc/self/cgroup``: ``id:controllers:path``, no controllers on version 2."""
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            yield [name for name in parts[1].split(",") if name], parts[2]


def _upwards(group: str) -> Iterator[str]:
    """The group and all above it. In a container its own path may not be visible, but the mount's root always is."""
    path = PurePosixPath("/", group.lstrip("/"))
    for folder in (path, *path.parents):
        if ".." not in folder.parts:
            yield str(folder).lstrip("/")


def _quota_v2(folder: Path) -> float | None:
    quota, _, period = (_read(folder / "cpu.max") or "").partition(" ")
    return _ratio(quota, period)


def _quota_v1(folder: Path) -> float | None:
    return _ratio(_read(folder / "cpu.cfs_quota_us") or "", _read(folder / "cpu.cfs_period_us") or "")


def _ratio(quota: str, period: str) -> float | None:
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None  # "max" on version 2, -1 on version 1, or no such file
    return int(quota) / int(period)


def _present(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None
