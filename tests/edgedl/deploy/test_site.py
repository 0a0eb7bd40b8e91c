"""Deployments to another user on this machine: a real sshd, a real ``systemd --user``, real packages, under load.

make test-slow PYTEST_ARGS="tests/edgedl/deploy"
"""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedl.deploy import connection as connections
from edgedl.deploy.connection import DeviceConnection
from edgedl.deploy.rollout import Deployed, Plan, Service, deploy, list_releases, roll_back
from edgedl.deploy.wheelhouse import Platform, fetch_wheels
from exporters.targets.address import Address
from runtime.bundle import Bundle, GoldenCase, golden_to_npz, write_bundle
from runtime.errors import CheckFailedError, EdgedlError, InputError
from runtime.manifest import CRITERION, GoldenRef, OutputParity, Parity
from service.keys import new_key
from tests.bundles import write_scale_bundle, write_sums_bundle
from tests.edgedl.deploy.site import Site, reason_against_site, site
from tests.edgedl.deploy.sshd import free_port
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(1800), pytest.mark.xdist_group("sshd")]

DEPLOYMENTS, CLIENTS = 30, 4
SMALL = "/mnt"
"""Where the device has a disk of 256 kB."""


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    reason = reason_against_site()
    if reason is not None:
        pytest.skip(reason)
    more = f"mount -t tmpfs -o size=256k,mode=1777 tmpfs {SMALL}"
    with site(more) as one:
        yield one


def scale_bundle(folder: Path, factor: float, **changes: Any) -> Bundle:
    scale = np.full(3, factor, np.float32)
    return write_scale_bundle(folder / f"{factor:g}.edge", scale, recorded=scale, version=f"{factor:g}", **changes)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return [scale_bundle(folder, float(factor)) for factor in (2, 3, 4, 5)]


@pytest.fixture(scope="module")
def plan(here: Site) -> Plan:
    return Plan(name="scale", ssh_config=str(here.config), service=Service(port=here.port, threads=1))


def sums_bundle(folder: Path, version: str) -> Bundle:
    """A bundle that streams, with a recorded answer."""
    bare = write_sums_bundle(folder / f"bare-{version}.edge", version)
    model = bare.model("sums")
    x, s0 = np.arange(12, dtype=np.float32).reshape(2, 3, 2), np.ones((2, 2), np.float32)
    case = GoldenCase("2 rows, 3 steps", {"x": x, "s0": s0}, {"y": x.cumsum(1) + s0[:, None], "sn": x.sum(1) + s0})
    golden = golden_to_npz([case])
    allowed = OutputParity(1e-5, 0.0, max_abs=1e-7, noise=1e-7, mutant=1e-3)
    recorded = replace(
        model,
        golden=GoldenRef("sums.golden.npz", hashlib.sha256(golden).hexdigest(), 1),
        parity=Parity(CRITERION, "numpy float64", {"y": allowed, "sn": allowed}),
    )
    files = {"sums.onnx": bare.graph("sums"), "sums.golden.npz": golden}
    return write_bundle(folder / f"{version}.edge", replace(bare.manifest, models={"sums": recorded}), files)


def bring(here: Site, bundle: Bundle, plan: Plan, connect: Any = None) -> Deployed:
    (done,) = deploy(bundle, [Address.parse(here.url)], plan, print, connect)
    return done


def with_service(plan: Plan, **changes: Any) -> Plan:
    assert plan.service is not None
    return replace(plan, service=replace(plan.service, **changes))


@pytest.fixture
def old(here: Site, bundles: list[Bundle], plan: Plan) -> Bundle:
    """The bundle that answers before something goes wrong."""
    bring(here, bundles[0], plan)
    return bundles[0]


def asked(port: int, timeout: float = 30.0) -> float:
    """The factor of the bundle that answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        body = json.dumps({"inputs": {"x": [[1.0, 1.0, 1.0]]}})
        connection.request("POST", "/v1/scale", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        document = json.loads(response.read())
        assert response.status == 200, document
        assert document["results"][0]["outputs"]["y"] == [[float(document["version"])] * 3]
        return float(document["version"])
    finally:
        connection.close()


def assert_old_answers(here: Site, plan: Plan, old: Bundle) -> None:
    """The old bundle answers, its release is the current one, and nothing lies around."""
    assert plan.service is not None
    root = plan.root or "~/.local/share/edgedl"
    until(lambda: "pending.json" not in here.run(f"ls {root}/deployments/scale"))
    assert asked(plan.service.port) == float(old.manifest.version)
    found = list_releases(Address.parse(here.url), plan)
    (current,) = [row for row in found["releases"] if row["release"] == found["current"]]
    assert current["bundle"]["digest"] == old.digest
    assert here.run("ls -a ~/.config/systemd/user | grep -E 'back|trial|new'") == ""
    assert here.run("systemctl --user list-units --all --no-legend '*trial*'") == ""


class Load:
    """Clients that ask without a pause: half of them keep their connection, half make a new one each time."""

    def __init__(self, port: int, factors: set[float]) -> None:
        self._port, self._factors = port, factors
        self._over, self._lock = threading.Event(), threading.Lock()
        self.faults: list[str] = []
        self.seconds: list[float] = []
        self.seen: set[float] = set()
        self._threads = [threading.Thread(target=self._run, args=(place % 2 == 0,)) for place in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, keep: bool) -> None:
        connection, answered = self._connection(), 0.0
        while not self._over.is_set():
            begin = time.monotonic()
            if not keep or begin - answered > 0.5:  # the server may be closing what was silent for a second
                connection.close()
            try:
                connection.request(
                    "POST", "/v1/scale", '{"inputs": {"x": [[1, 1, 1]]}}', {"Content-Type": "application/json"}
                )
                response = connection.getresponse()
                body = response.read()
                factor = float(json.loads(body)["version"]) if response.status == 200 else 0.0
                right = json.loads(body)["results"][0]["outputs"]["y"] == [[factor] * 3] if factor else False
                fault = None if right and factor in self._factors else f"{response.status}: {body[:200]!r}"
            except (OSError, http.client.HTTPException, ValueError) as error:
                connection.close()
                fault, factor = repr(error), 0.0
            answered = time.monotonic()
            with self._lock:
                self.seconds.append(answered - begin)
                self.seen.add(factor)
                if fault is not None:
                    self.faults.append(fault)
            self._over.wait(0.01)
        connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)


def test_thirty_deployments_under_load_lose_no_request(here, bundles, plan, old):
    """Every sixth one restarts the service, because its settings change; the others swap the bundle."""
    load = Load(here.port, {2.0, 3.0})
    how = []
    try:
        for number in range(1, DEPLOYMENTS + 1):
            threads = 1 + number // 6 % 2
            how.append(bring(here, bundles[number % 2], with_service(plan, threads=threads)).how)
    finally:
        load.stop()
    worst = max(load.seconds)
    print(
        f"{len(load.seconds)} requests, {len(load.faults)} lost, worst {worst:.1f} s, {how.count('restart')} restarts"
    )
    assert load.faults == []
    assert load.seen == {2.0, 3.0}
    assert len(load.seconds) > 10 * DEPLOYMENTS
    assert how.count("restart") == 5
    assert how.count("swap") == DEPLOYMENTS - 5


def test_a_stream_lives_on_through_a_swap_and_is_told_410_after_a_restart(here, tmp_path, plan):
    port = free_port()
    plan = replace(with_service(plan, port=port), name="sums")

    def post(path: str, body: str = "") -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", path, body, {"Content-Type": "text/plain"})
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, json.loads(text) if text.startswith(b"{") else text

    bring(here, sums_bundle(tmp_path, "1"), plan)
    stream = post("/v1/sums/streams")[1]["stream"]
    assert post(f"/v1/sums/streams/{stream}", "1 2\n")[1]["results"][0]["y"] == [1.0, 2.0]
    assert bring(here, sums_bundle(tmp_path, "2"), plan).how == "swap"
    assert post(f"/v1/sums/streams/{stream}", "1 2\n")[1]["results"][0]["y"] == [2.0, 4.0]
    assert bring(here, sums_bundle(tmp_path, "3"), with_service(plan, threads=2)).how == "restart"
    assert post(f"/v1/sums/streams/{stream}", "1 2\n")[0] == 410


def test_a_service_with_keys_is_asked_with_one(here, bundles, plan, old, tmp_path):
    key, line = new_key("phone")
    bring(here, bundles[1], with_service(plan, keys=(line,)))
    connection = http.client.HTTPConnection("127.0.0.1", here.port, timeout=30)
    statuses = []
    for headers in ({}, {"Authorization": f"Bearer {key}"}):
        connection.request("GET", "/v1", headers=headers)
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
    connection.close()
    assert statuses == [401, 200]
    bring(here, bundles[2], with_service(plan, keys=(line,)))  # a swap, whose health check has the key


def test_wrong_answers_are_not_switched_to(here, tmp_path, plan, old):
    with pytest.raises(CheckFailedError, match="nothing was switched"):
        bring(here, scale_bundle(tmp_path, 9, spoilt=3), plan)
    assert_old_answers(here, plan, old)


BAD_UNITS: dict[str, tuple[tuple[str, str], str]] = {
    "no such program": (('f"ExecStart={', 'f"ExecStart=/nowhere{'), "does not run|systemctl --user start"),
    "not a unit": (('"Type=exec"', '"ExecStart=relative"'), "systemctl --user"),
    "refused calls": (("SystemCallFilter=@system-service", "SystemCallFilter=~openat"), "does not run"),
    "no memory": (("LimitCORE=0", "LimitAS=64M"), "does not run"),
    "ends at once": (('"Type=exec"', '"Type=oneshot", "ExecStartPre=/bin/false"'), "systemctl --user|does not run"),
}


@pytest.mark.parametrize("fault", BAD_UNITS)
def test_a_bad_unit_is_taken_back(here, bundles, plan, old, monkeypatch, fault):
    (good, bad), told = BAD_UNITS[fault]
    text = connections._text

    def spoilt(module: str) -> str:
        source = text(module)
        assert module != "systemd" or good in source
        return source.replace(good, bad) if module == "systemd" else source

    with monkeypatch.context() as patched:
        patched.setattr(connections, "_text", spoilt)
        with pytest.raises(CheckFailedError, match=told):
            bring(here, bundles[1], with_service(plan, memory="50%"))
    assert_old_answers(here, plan, old)


def test_a_port_that_is_taken_is_told_and_the_old_port_answers(here, bundles, plan, old):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CheckFailedError, match="systemctl --user start"):
            bring(here, bundles[1], with_service(plan, port=taken.getsockname()[1]))
    assert_old_answers(here, plan, old)


def test_wheels_for_another_processor_are_refused(here, bundles, plan, old, tmp_path):
    for wheel in fetch_wheels(Platform("x86_64", (3, 11), (2, 36))):
        name = wheel.file.replace("x86_64", "aarch64") if wheel.name == "numpy" else wheel.file
        shutil.copy(wheel.path, tmp_path / name)
    with pytest.raises(InputError, match="is not a supported wheel on this platform"):
        bring(here, bundles[1], replace(plan, wheelhouse=tmp_path))
    assert_old_answers(here, plan, old)
    assert here.run("ls -d ~/.local/share/edgedl/environments/* | wc -l").strip() == "1"


@pytest.mark.parametrize("pages", [0, 1, 2, 3, 4, 6])
def test_a_full_disk_leaves_the_old_one(here, bundles, plan, old, pages):
    """The disk of 256 kB is filled up to some pages of 4 kB; each time another write meets its end."""
    python = list_releases(Address.parse(here.url), plan)["releases"][-1]["python"]
    small = replace(plan, root=f"{SMALL}/edgedl", python=python, python3="python3")
    bring(here, bundles[0], small)
    here.run(f"dd if=/dev/zero of={SMALL}/filler bs=4k; truncate -s -{4 * pages}k {SMALL}/filler")
    told = None
    try:
        bring(here, bundles[1], small)
    except EdgedlError as error:
        told = str(error)
    print(f"{pages} pages: {told or 'enough'}")
    try:
        if told is None:
            assert pages > 4
            assert asked(here.port) == 3.0
        else:
            assert "No space left" in told or "are free" in told
            assert_old_answers(here, small, old)
    finally:
        here.run(f"rm -f {SMALL}/filler")
        bring(here, bundles[0], plan)
        here.run(f"rm -rf {SMALL}/edgedl")


class Cut(DeviceConnection):
    """A connection whose ssh is killed at a step."""

    step = ""

    def send(self, do: str, **arguments: Any) -> None:
        super().send(do, **arguments)
        if do == self.step:
            self._child.send_signal(signal.SIGKILL)

    def _until(self, awaited: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
        def look(told: Mapping[str, Any]) -> bool:
            if told.get("step") == self.step:
                self._child.send_signal(signal.SIGKILL)
            return awaited(told)

        return super()._until(look)


STEPS = ("hello", "manager", "has_environment", "environment", "sent", "put", "stage", "prove", "activate")


@pytest.mark.parametrize(
    ("step", "restarts"),
    [
        *((step, False) for step in (*STEPS, "switch", "healthy")),
        *((step, True) for step in ("try", "switch", "healthy")),
    ],
    ids=[*STEPS, "switch", "healthy", "try and restart", "switch and restart", "healthy and restart"],
)
def test_a_cut_connection_is_taken_back_and_made_good(here, bundles, plan, old, step, restarts):
    changed = with_service(plan, memory="60%") if restarts else plan

    def connect(address: Address, told: Any) -> DeviceConnection:
        return type("CutHere", (Cut,), {"step": step}).over_ssh(address, told, config=str(here.config))

    with pytest.raises(EdgedlError):
        bring(here, bundles[1], changed, connect)
    until(lambda: here.run("pgrep -f '[f]romhex'") == "", seconds=120)  # it ends by itself
    assert_old_answers(here, plan, old)
    done = bring(here, bundles[1], changed)
    assert asked(here.port) == 3.0
    assert done.how == ("restart" if restarts else "swap")


def test_a_rollback_brings_the_settings_back_as_well(here, bundles, plan, old):
    bring(here, bundles[2], with_service(plan, memory="40%"))
    assert asked(here.port) == 4.0
    assert roll_back(Address.parse(here.url), plan, print).how == "restart"
    assert_old_answers(here, plan, old)
    assert "MemoryMax=75%" in here.run("cat ~/.config/systemd/user/edgedl-scale.service")
