"""A copy of this process, for where no other program can be started."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from runtime import child, devices

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    # Python warns of a fork beside threads; what the copy does here needs none of them.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def fail() -> None:
    raise RuntimeError("it is broken")


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    os._exit(5)


@pytest.mark.parametrize(
    ("work", "status", "said"),
    [(lambda: None, 0, ""), (fail, 1, "it is broken"), (kill_itself, -9, ""), (leave, 5, "")],
    ids=["well", "an exception", "a crash", "an exit"],
)
def test_a_copy_tells_how_it_ended(work, status, said):
    assert child.run_forked(work) == (status, said)


def test_a_copy_that_hangs_is_ended():
    with pytest.raises(subprocess.TimeoutExpired):
        child.run_forked(lambda: time.sleep(600), timeout=0.1)


@pytest.mark.parametrize(("started", "ok"), [(True, True), (False, False)], ids=["starts", "does not"])
def test_where_no_program_can_be_started_providers_are_tried_in_a_copy(monkeypatch, started, ok):
    """As under qemu's user emulation."""

    def cannot(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 127, "", "")

    def probe(device: str) -> None:
        if not started:
            raise RuntimeError(f"{device} does not start")

    monkeypatch.setattr(child, "run_python", cannot)
    monkeypatch.setattr(devices, "probe_here", probe)
    (status,) = [one for one in devices.probe() if one.device == "cpu"]
    assert status.ok is ok
    assert status.reason == ("" if ok else "cpu does not start")
