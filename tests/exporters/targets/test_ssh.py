"""A device over ssh: OpenSSH's client and a server of its own on loopback."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from exporters.targets.base import TargetError
from exporters.targets.known import find_target
from exporters.targets.prove import prove
from runtime.errors import InputError
from runtime.verify import verify
from tests.bundles import write_scale_bundle
from tests.edgedl.deploy.sshd import reason_against_sshd, sshd

REASON = reason_against_sshd()
needs_sshd = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@needs_sshd
def test_the_answers_are_those_of_the_device(server, tmp_path: Path):
    bundle = write_scale_bundle(tmp_path / "scale.edge")
    with find_target(server.url, python=sys.executable, ssh_config=str(server.config)) as target:
        report = prove(bundle, target)
    assert report
    assert report.checks == verify(bundle, threads=1).checks
    (proof,) = report.proofs
    assert (proof.target, proof.emulated) == (server.url, False)
    assert proof.p95_ms is not None


@needs_sshd
@pytest.mark.parametrize("package", ["numpy", "onnxruntime"])
def test_a_package_that_is_missing_there_is_named(server, tmp_path: Path, package: str):
    python = tmp_path / "python"
    code = (
        "import sys\nclass Without:\n  def find_spec(self, name, path=None, target=None):\n"
        f"    if name == {package!r}: raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)\n"
        "sys.meta_path.insert(0, Without()); exec(sys.argv[1])"
    )
    python.write_text(f'#!/bin/sh\nshift\nexec {shlex.join([sys.executable, "-c", code])} "$1"\n')
    python.chmod(0o755)
    target = find_target(server.url, python=str(python), ssh_config=str(server.config))
    with pytest.raises(TargetError, match=f"there has no {package}; install numpy and onnxruntime for it, or name an"):
        target.open()


@needs_sshd
def test_a_connection_that_is_cut_is_no_answer(server, tmp_path: Path):
    with find_target(server.url, python=sys.executable, ssh_config=str(server.config)) as target:
        session = target.session(write_scale_bundle(tmp_path / "scale.edge").graph("scale"))
        target._child._process.kill()
        with pytest.raises(TargetError):
            session.run(["y"], {})
        target._child._process.returncode = 255  # as ssh ends where the network goes away
        assert target.lost() == f"{server.url}: the connection was cut"


@needs_sshd
def test_a_server_that_refuses_is_told(server, tmp_path: Path):
    config = tmp_path / "config"
    config.write_text(server.config.read_text().replace("login", "host"))
    with pytest.raises(TargetError, match=r"^ssh://.*: the process there ended: .*Permission denied"):
        find_target(server.url, ssh_config=str(config)).open()


def test_what_is_no_address_is_told():
    with pytest.raises(InputError, match="expected ssh://USER@HOST or ssh://USER@HOST:PORT"):
        find_target("ssh://-oProxyCommand=x")
