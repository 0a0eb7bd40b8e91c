"""A socket that systemd hands over (sd_listen_fds): the service takes it, and leaves it as it was."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from runtime.errors import InputError
from service.server.listening import inherited
from tests.bundles import write_scale_bundle
from tests.service.processes import ended

ROOT = Path(__file__).resolve().parents[2]
# What systemd does for a service: the socket is file descriptor 3, and the process knows that it is meant.
HAND_OVER = "exec 3<&{fd} {fd}<&-; LISTEN_PID=$$ LISTEN_FDS=1 exec {python} -m edgedl serve {bundle} --threads 1"


def start(listener: socket.socket, bundle: Path) -> subprocess.Popen[str]:
    words = HAND_OVER.format(fd=listener.fileno(), python=sys.executable, bundle=bundle)
    return subprocess.Popen(
        ["bash", "-c", words], cwd=ROOT, pass_fds=[listener.fileno()], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def test_the_next_process_answers_whoever_came_while_there_was_none(tmp_path):
    bundle = write_scale_bundle(tmp_path / "scale.edge").path
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with ended(start(listener, bundle)) as first:
            assert f"http://127.0.0.1:{port}" in first.stdout.readline()
            first.send_signal(signal.SIGTERM)
            assert first.wait(timeout=60) == 0
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("GET", "/livez")  # nobody is there; the socket keeps it
            with ended(start(listener, bundle)) as second:
                assert connection.getresponse().status == 200
                second.send_signal(signal.SIGTERM)
                assert second.wait(timeout=60) == 0


@pytest.mark.parametrize(
    "variables",
    [{}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}, {"LISTEN_FDS": "0"}, {"LISTEN_FDS": "x"}],
    ids=["nothing", "for another process", "none", "no number"],
)
def test_what_is_not_meant_for_this_process_is_left_alone(monkeypatch, variables):
    for name, value in ({"LISTEN_PID": str(os.getpid())} | variables).items():
        monkeypatch.setenv(name, value)
    assert inherited() is None
    assert "LISTEN_PID" not in os.environ  # a child is not to take it for its own


def test_several_sockets_are_refused(monkeypatch):
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "2")
    with pytest.raises(InputError, match="systemd hands over 2 sockets"):
        inherited()
