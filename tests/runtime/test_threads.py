"""Threads from affinity, topology and both versions of control groups, read from made-up /proc and /sys trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.threads import cpu_quota, default_threads, thread_budget


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


def cores(*siblings: str) -> dict[str, str]:
    return {
        f"sys/devices/system/cpu/cpu{index}/topology/thread_siblings_list": f"{value}\n"
        for index, value in enumerate(siblings)
    }


V2 = {"proc/self/cgroup": "0::/app.slice/job\n"}
V1 = {"proc/self/cgroup": "5:memory:/job\n4:cpu,cpuacct:/docker/abc\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({**V2, "sys/fs/cgroup/app.slice/job/cpu.max": "max 100000\n"}, None),
        ({**V2, "sys/fs/cgroup/app.slice/job/cpu.max": "150000 100000\n"}, 1.5),
        ({**V2, "sys/fs/cgroup/app.slice/cpu.max": "200000 100000"}, 2.0),
        (
            {
                **V2,
                "sys/fs/cgroup/app.slice/job/cpu.max": "400000 100000",
                "sys/fs/cgroup/app.slice/cpu.max": "300000 100000",
                "sys/fs/cgroup/cpu.max": "max 100000",
            },
            3.0,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000"}, 0.5),
        ({"proc/self/cgroup": "0::/../sibling\n", "sys/fs/cgroup/cpu.max": "250000 100000"}, 2.5),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "250000",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
            },
            2.5,
        ),
        ({**V1, "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000"}, 1.0),
        ({**V1, "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, None),
        ({**V1, "sys/fs/cgroup/unified/cpu.max": "700000 100000"}, 7.0),
        ({"proc/self/cgroup": "0::/x", "sys/fs/cgroup/x/cpu.max": "nonsense"}, None),
        ({"proc/self/cgroup": "0::/x", "sys/fs/cgroup/x/cpu.max": "100000 0"}, None),
        ({"proc/self/cgroup": "garbage", "sys/fs/cgroup/cpu.max": "100000 100000"}, None),
    ],
    ids=[
        "nothing mounted", "v2 no limit", "v2", "v2 parent", "v2 tightest", "v2 root of a container", "v2 outside",
        "v1", "v1 mount root", "v1 no limit", "hybrid", "nonsense", "period 0", "garbage",
    ],
)  # fmt: skip
def test_quota(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    assert cpu_quota(plant(tmp_path, files)) == quota


@pytest.mark.parametrize(
    ("allowed", "siblings", "quota", "chosen"),
    [
        (range(8), [str(i) for i in range(8)], None, 8),
        ([2, 3], [str(i) for i in range(8)], None, 2),
        (range(4), ["0-1", "0-1", "2-3", "2-3"], None, 2),
        ([0, 2], ["0-1", "0-1", "2-3", "2-3"], None, 2),
        (range(8), [str(i) for i in range(8)], "300000 100000", 3),
        (range(8), [str(i) for i in range(8)], "190000 100000", 1),
        (range(8), [str(i) for i in range(8)], "20000 100000", 1),
        (range(2), ["0", "1"], "6400000 100000", 2),
        (range(3), [], None, 3),
        ([], [], None, 1),
    ],
    ids=["all", "affinity", "hyper-threads", "one thread a core", "quota", "rounded down", "a fifth", "wide quota",
         "no topology", "nothing allowed"],
)  # fmt: skip
def test_budget(tmp_path: Path, allowed, siblings: list[str], quota: str | None, chosen: int) -> None:
    files = cores(*siblings)
    if quota:
        files |= {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": quota}
    budget = thread_budget(plant(tmp_path, files), allowed)
    assert budget.chosen == chosen
    assert budget.affinity == max(1, len(list(allowed)))


def test_this_machine() -> None:
    budget = thread_budget()
    assert 1 <= budget.chosen <= budget.cores <= budget.affinity <= budget.host
    assert default_threads() == budget.chosen


def test_affinity_of_this_process_is_followed() -> None:
    import os

    from runtime.child import run_python

    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    first = min(os.sched_getaffinity(0))
    done = run_python(
        f"import os; os.sched_setaffinity(0, {{{first}}}); from runtime.threads import default_threads as t; print(t())"
    )
    assert done.stdout.strip() == "1", done.stderr
