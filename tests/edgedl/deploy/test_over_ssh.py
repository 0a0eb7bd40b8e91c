"""A deployment through OpenSSH's client and a real sshd on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from edgedl.cli import main
from tests.bundles import write_scale_bundle
from tests.edgedl.deploy.sshd import Sshd, reason_against_sshd, sshd
from tests.edgedl.deploy.stand_ins import device

REASON = reason_against_sshd()
pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
    pytest.mark.xdist_group("sshd"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd")) as one:
        yield one


def test_a_bundle_goes_there_is_listed_and_taken_back(server, tmp_path, capsys):
    with device(tmp_path) as there:
        words = [server.url, "--ssh-config", str(server.config), "--folder", str(there.root)]
        how = ["--python", str(there.interpreter.path), "--no-service", "--url", there.service.address, "--json"]
        how += ["--python3", "python3"]
        releases = []
        for version in ("1", "2"):
            bundle = write_scale_bundle(tmp_path / f"{version}.edge", version=version)
            assert main(["deploy", str(bundle.path), *words, *how]) == 0
            (done,) = json.loads(capsys.readouterr().out)["devices"]
            releases.append(done["release"])
        assert there.current == releases[1]
        assert main(["deploy", "scale", *words, "--list"]) == 0
        assert f"{releases[1]}  2        {bundle.digest[:12]}  answers" in capsys.readouterr().out
        assert main(["deploy", "scale", *words, *how, "--rollback"]) == 0
        assert there.current == releases[0]


def test_a_host_that_is_not_known_is_refused(server, tmp_path, capsys):
    config = tmp_path / "ssh_config"
    text = server.config.read_text().replace("known_hosts", "no_known_hosts")
    config.write_text(text)
    bundle = write_scale_bundle(tmp_path / "scale.edge")
    assert main(["deploy", str(bundle.path), server.url, "--ssh-config", str(config)]) == 2
    assert "Host key verification failed" in capsys.readouterr().err


def test_a_key_that_is_not_taken_is_told(server, tmp_path, capsys):
    bundle = write_scale_bundle(tmp_path / "scale.edge")
    url = server.url.replace("ssh://", "ssh://nobody-", 1)
    assert main(["deploy", str(bundle.path), url, "--ssh-config", str(server.config)]) == 2
    assert "Permission denied" in capsys.readouterr().err


def test_nobody_at_the_address_is_told(tmp_path, server, capsys):
    bundle = write_scale_bundle(tmp_path / "scale.edge")
    assert main(["deploy", str(bundle.path), "ssh://me@127.0.0.1:1", "--ssh-config", str(server.config)]) == 2
    assert "Connection refused" in capsys.readouterr().err
