"""What `edgedl deploy` refuses before it connects."""

from __future__ import annotations

import pytest

from edgedl.cli import main
from tests.bundles import write_scale_bundle


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ssh://a", "--url", "127.0.0.1:1"], "--url belongs to --no-service"),
        (["camera"], "expected ssh://USER@HOST"),
        (["ssh://a", "--memory", "much"], "--memory much is no amount"),
        (["ssh://a", "--name", "a.b"], "'a.b' cannot be the name of a deployment"),
        (["ssh://a", "--list", "--rollback"], "not allowed with"),
    ],
    ids=["url", "address", "memory", "name", "both"],
)
def test_a_mistake_is_one_sentence(tmp_path, capsys, words, told):
    bundle = write_scale_bundle(tmp_path / "scale.edge")
    assert main(["deploy", str(bundle.path), *words]) == 2
    assert told in capsys.readouterr().err


def test_no_ssh_is_told(tmp_path, capsys, monkeypatch):
    bundle = write_scale_bundle(tmp_path / "scale.edge")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["deploy", str(bundle.path), "ssh://a"]) == 2
    assert "there is no ssh on this machine" in capsys.readouterr().err
