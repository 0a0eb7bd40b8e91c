"""A deployment and everything that can go wrong with it, on a device without ssh, systemd and packages."""

from __future__ import annotations

import ast
import hashlib
import resource
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgedl.deploy import connection as connections
from edgedl.deploy.connection import PROGRAM, ConnectionLost, DeviceConnection
from edgedl.deploy.rollout import deploy, list_releases, roll_back
from runtime.bundle import Bundle
from runtime.errors import CheckFailedError, InputError
from tests.bundles import write_scale_bundle
from tests.edgedl.deploy.stand_ins import ADDRESS, RIGHT, Device, device


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    scales = {version: np.full(3, place + 1, np.float32) for place, version in enumerate(("1", "2", "3", "4", "5"))}
    return {
        version: write_scale_bundle(folder / f"{version}.edge", scale, recorded=scale, version=version)
        for version, scale in scales.items()
    }


@pytest.fixture
def there(tmp_path) -> Iterator[Device]:
    with device(tmp_path) as one:
        yield one


def bring(there: Device, bundle: Bundle, **changes):
    (done,) = deploy(bundle, [ADDRESS], replace(there.plan, **changes), there.said.append, there.connect)
    return done


def test_a_bundle_is_brought_proven_switched_to_and_asked(there, bundles):
    done = bring(there, bundles["1"])
    assert (done.how, done.worst, done.release) == ("swap", pytest.approx(0.2), there.current)
    assert there.service.digest() == bundles["1"].digest
    assert Bundle.open(there.link / "scale.edge").proofs == bundles["1"].proofs  # they come along
    assert there.leftovers() == []
    assert done.told.startswith("recorded answers come back")


def test_the_same_bundle_again_is_the_same_release(there, bundles):
    first = bring(there, bundles["1"])
    sent = [text for text in there.said if "sending" in text]
    again = bring(there, bundles["1"])
    assert (again.release, again.how) == (first.release, "unchanged")
    assert len([text for text in there.said if "sending" in text]) == 2 * len(sent)  # a release holds no copy aside


def test_the_health_check_has_a_key_of_its_own_that_stays_there(there, bundles):
    bring(there, bundles["1"])
    key = (there.link.parent / "key").read_text().strip()
    assert there.service.seen_key == f"Bearer {key}"
    assert (there.link.parent / "key").stat().st_mode & 0o777 == 0o600
    with there.connect(ADDRESS, lambda _told: None) as one:
        one.call("hello", root=str(there.root), name="scale", wait=0)
        assert one.call("key")["sha256"] == hashlib.sha256(key.encode()).hexdigest()
    bring(there, bundles["2"])
    assert there.service.seen_key == f"Bearer {key}"


def test_old_releases_go(there, bundles):
    names = [bring(there, bundles[version], keep=2).release for version in ("1", "2", "3")]
    found = list_releases(ADDRESS, there.plan, there.connect)
    assert [record["release"] for record in found["releases"]] == names[1:]
    assert found["current"] == names[2]
    assert list((there.root / "store").iterdir()) == []


def test_a_rollback_goes_back_and_forth(there, bundles):
    first, second = bring(there, bundles["1"]), bring(there, bundles["2"])
    assert roll_back(ADDRESS, there.plan, there.said.append, there.connect).release == first.release
    assert there.service.digest() == bundles["1"].digest
    assert roll_back(ADDRESS, there.plan, there.said.append, there.connect).release == second.release


def test_a_rollback_needs_a_release_before(there, bundles):
    bring(there, bundles["1"])
    with pytest.raises(InputError, match="no release of 'scale' before"):
        roll_back(ADDRESS, there.plan, there.said.append, there.connect)


def assert_untouched(there: Device, release: str, bundle: Bundle) -> None:
    assert there.current == release
    assert there.service.digest() == bundle.digest
    assert [name for name in there.leftovers() if name != "trial.log"] == []
    assert [entry.name for entry in (there.link.parent / "releases").iterdir()] == [release]


def test_wrong_answers_are_not_switched_to(there, bundles):
    first = bring(there, bundles["1"])
    there.interpreter.verify({"ok": False, "checks": [RIGHT, {**RIGHT, "output": "z", "max_abs": 1.0, "ok": False}]})
    with pytest.raises(CheckFailedError, match=r"output z, error 1\.0, allowed 1e-05; nothing was switched"):
        bring(there, bundles["2"])
    assert_untouched(there, first.release, bundles["1"])


def test_a_proof_that_cannot_be_made_is_told(there, bundles):
    there.interpreter.verify({"ok": False, "error": {"message": "onnxruntime is not installed"}})
    with pytest.raises(CheckFailedError, match="cannot be proven there: onnxruntime is not installed"):
        bring(there, bundles["1"])
    assert there.current is None


def test_a_service_that_answers_wrongly_is_switched_back(there, bundles):
    first = bring(there, bundles["1"])
    there.interpreter.answer(False, "model scale, output y: error 1.0")
    with pytest.raises(CheckFailedError, match=r"output y: error 1\.0; what answered before does so again"):
        bring(there, bundles["2"])
    assert_untouched(there, first.release, bundles["1"])


def test_a_bundle_that_the_service_keeps_out_is_switched_back(there, bundles):
    first = bring(there, bundles["1"])
    there.service.keeps_out = "it is signed by nobody"
    with pytest.raises(CheckFailedError, match="keeps the bundle out: it is signed by nobody"):
        bring(there, bundles["2"])
    there.service.keeps_out = None
    assert_untouched(there, first.release, bundles["1"])


def test_a_first_deployment_that_fails_leaves_nothing(there, bundles):
    there.interpreter.answer(False, "no")
    with pytest.raises(CheckFailedError, match="nothing is served, as before"):
        bring(there, bundles["1"])
    assert there.current is None
    assert there.leftovers() == []
    there.interpreter.answer(True, "yes")
    assert bring(there, bundles["1"]).told.startswith("yes")


CUTS = ("hello", "interpreter", "sent", "put", "stage", "prove", "activate", "confirm")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", CUTS)
def test_a_cut_leaves_the_old_one_and_is_made_good(there, bundles, step, after):
    """The connection ends just before or after a request was sent; the next deployment goes on."""
    first = bring(there, bundles["1"])

    class Cut(DeviceConnection):
        def send(self, do, **arguments):
            if do != step or after:
                super().send(do, **arguments)
            if do == step:
                self._child.stdin.close()
                self._child.wait(timeout=60)  # what it does to the end, it does before we look
                raise ConnectionLost("cut")

    def connect(_address, told):
        return Cut("here", [sys.executable, "-I", "-c", PROGRAM], told)

    with pytest.raises(ConnectionLost):
        next(deploy(bundles["2"], [ADDRESS], there.plan, there.said.append, connect))
    if (step, after) == ("confirm", True):
        assert there.service.digest() == bundles["2"].digest  # the word was out: it counts
    else:
        assert there.current == first.release
        assert there.service.digest() == bundles["1"].digest
    assert there.leftovers() == []
    assert bring(there, bundles["2"]).release == there.current
    assert there.service.digest() == bundles["2"].digest


def test_half_of_a_file_is_not_sent_twice(there, bundles, tmp_path):
    data = np.random.default_rng(0).bytes(3 << 20)
    path = tmp_path / "large.bin"
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    with there.connect(ADDRESS, lambda _told: None) as one:
        one.call("hello", root=str(there.root), name="scale", wait=0)
        one.send("put", sha256=digest, file="large.bin", offset=0, bytes=len(data))
        one._write(data[: 1 << 20])
    sent = []
    with there.connect(ADDRESS, lambda _told: None) as one:
        one.call("hello", root=str(there.root), name="scale", wait=0)
        one.upload(path, digest, "large.bin", sent.append)
        assert one.call("sent", files=[{"file": "large.bin", "sha256": digest}])["bytes"] == [len(data)]
    assert sum(sent) == 2 << 20


def test_a_damaged_file_is_refused_and_removed(there, tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"abc")
    with there.connect(ADDRESS, lambda _told: None) as one:
        one.call("hello", root=str(there.root), name="scale", wait=0)
        with pytest.raises(InputError, match=r"file\.bin came damaged and was removed"):
            one.upload(path, "0" * 64, "file.bin")
        assert one.call("sent", files=[{"file": "file.bin", "sha256": "0" * 64}])["bytes"] == [0]


@pytest.mark.parametrize("file", ["../x", "a/b", "", ".x", "x\n"], ids=["up", "down", "none", "hidden", "line"])
def test_names_do_not_lead_out_of_the_store(there, file):
    with there.connect(ADDRESS, lambda _told: None) as one:
        one.call("hello", root=str(there.root), name="scale", wait=0)
        with pytest.raises(InputError, match="is no name of a file"):
            one.call("sent", files=[{"file": file, "sha256": "0" * 64}])


def test_two_deployments_at_once_are_refused(there, bundles):
    with there.connect(ADDRESS, lambda _told: None) as one:
        one.call("hello", root=str(there.root), name="scale", wait=0)
        with pytest.raises(InputError, match="another deployment is under way there"):
            bring(there, bundles["1"], wait=0.0)
    bring(there, bundles["1"])


def test_a_killed_switch_is_taken_back_at_the_next_contact(there, bundles):
    first = bring(there, bundles["1"])
    there.interpreter.path.write_text(
        '#!/bin/sh\ncase "$*" in *answers*) sleep 60;; *verify*) cat "$0.verify";; esac\n'
    )

    class Killed(DeviceConnection):
        def _until(self, awaited):
            def kill(told):
                if told.get("step") == "switch":
                    while there.current == first.release:
                        pass
                    self._child.send_signal(signal.SIGKILL)
                return awaited(told)

            return super()._until(kill)

    def connect(_address, told):
        return Killed("here", [sys.executable, "-I", "-c", PROGRAM], told)

    with pytest.raises(ConnectionLost):
        next(deploy(bundles["2"], [ADDRESS], there.plan, there.said.append, connect))
    assert there.current != first.release  # what was killed could not go back
    assert "pending.json" in there.leftovers()
    with there.connect(ADDRESS, lambda _told: None) as one:
        assert (
            one.call("hello", root=str(there.root), name="scale", wait=0)["recovered"]
            == f"{first.release} answers again"
        )
    assert there.current == first.release
    assert there.leftovers() == []


def test_a_way_back_to_a_service_that_is_gone_bars_nothing(there, bundles, monkeypatch):
    text = connections._text
    patient, hasty = "START_SECONDS, SWAP_SECONDS = 180", "START_SECONDS, SWAP_SECONDS = 1"
    monkeypatch.setattr(connections, "_text", lambda module: text(module).replace(patient, hasty))
    first = bring(there, bundles["1"])
    (there.link.parent / "pending.json").write_text(f'{{"to": "2-x", "from": "{first.release}"}}')
    record = there.link / "release.json"
    record.write_text(record.read_text().replace(there.service.address, "127.0.0.1:1"))
    with there.connect(ADDRESS, lambda _told: None) as one:
        told = one.call("hello", root=str(there.root), name="scale", wait=0)["recovered"]
    assert told.startswith(f"{first.release} is the current release again, but the service did not answer")
    assert there.leftovers() == []


def test_no_room_is_told_and_leaves_everything_as_it_was(there, bundles):
    """A limit on the size of files stands in for a full disk; the disk itself is full in `test_site`."""
    first = bring(there, bundles["1"])

    class Limited(DeviceConnection):
        def __init__(self, device, command, told):
            super().__init__(device, command, told)
            resource.prlimit(self._child.pid, resource.RLIMIT_FSIZE, (2000, 2000))

    def connect(_address, told):
        return Limited("here", [sys.executable, "-I", "-c", PROGRAM], told)

    with pytest.raises((InputError, ConnectionLost), match=r"File too large|ended"):
        next(deploy(bundles["2"], [ADDRESS], there.plan, there.said.append, connect))
    assert_untouched(there, first.release, bundles["1"])
    assert [entry.name for entry in (there.root / "store").iterdir()] == []


def test_what_may_not_fit_is_not_sent(there, bundles):
    class Small(DeviceConnection):
        def call(self, do, **arguments):
            answer = super().call(do, **arguments)
            return answer | {"free": 1000} if do == "hello" else answer

    def connect(_address, told):
        return Small("here", [sys.executable, "-I", "-c", PROGRAM], told)

    with pytest.raises(InputError, match=r"1\.0 kB are free in .*; nothing was sent"):
        next(deploy(bundles["1"], [ADDRESS], there.plan, there.said.append, connect))


def test_the_first_failure_ends_the_round(there, bundles):
    seen = []

    def connect(address, told):
        seen.append(str(address))
        if address.host == "second":
            raise ConnectionLost("no route")
        return there.connect(address, told)

    addresses = [replace(ADDRESS, host=host) for host in ("first", "second", "third")]
    rounds = deploy(bundles["1"], addresses, there.plan, there.said.append, connect)
    assert next(rounds).device == "ssh://first"
    with pytest.raises(ConnectionLost):
        next(rounds)
    assert seen == ["ssh://first", "ssh://second"]


def test_a_shell_that_talks_is_told(bundles):
    with (
        DeviceConnection("here", ["sh", "-c", "echo Welcome; cat >/dev/null"], lambda _told: None) as one,
        pytest.raises(InputError, match="its login shell prints 'Welcome"),
    ):
        one.call("hello", root=None, name="scale", wait=None)


def test_a_device_without_python_is_told():
    with pytest.raises((ConnectionLost, InputError), match="no python3 there"):  # noqa: SIM117
        with DeviceConnection("here", ["sh", "-c", "exec no-such-python"], lambda _told: None) as one:
            one.call("hello", root=None, name="scale", wait=None)


def test_the_program_needs_nothing_but_python():
    """It is sent whole: nothing of edgedl, numpy or site-packages may be imported there."""
    sources = sorted((Path(connections.__file__).parent / "device").glob("[a-z]*.py"))
    assert {path.stem for path in sources} == set(connections.MODULES)
    for path in sources:
        tree = ast.parse(path.read_text(), feature_version=(3, 8))  # an old one is to be told, not to stumble
        for node in ast.walk(tree):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                own = name in {
                    "edgedl.deploy.device",
                    *(f"edgedl.deploy.device.{word}" for word in connections.MODULES),
                }
                assert own or name.split(".")[0] in sys.stdlib_module_names, f"{path.name}: {name}"
