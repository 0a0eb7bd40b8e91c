"""The units of a deployment, read by systemd's own tools."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgedl.deploy.device.systemd import quoted, texts

ANALYZE = shutil.which("systemd-analyze")
SERVICE = {
    "host": "127.0.0.1", "port": 8000, "arguments": ["--device", "cpu"], "memory": "75%", "sandbox": True, "keys": None,
    "private_devices": True,
}  # fmt: skip


def units(root: Path, trial: bool = False, **changes: object) -> dict[str, str]:
    record = {"python": sys.executable, "service": SERVICE | changes}
    return texts(root, "scale", root / "deployments/scale/current/scale.edge", record, trial)


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("plain", '"plain"'),
        ("two words", '"two words"'),
        ('"', r'"\""'),
        ("\\", r'"\\"'),
        ("100%", '"100%%"'),
        ("$HOME", '"$$HOME"'),
        ("a\nb", r'"a\nb"'),
    ],
    ids=["plain", "space", "quote", "backslash", "percent", "dollar", "line"],
)
def test_words_are_written_as_systemd_reads_them(word, written):
    assert quoted(word) == written


@pytest.mark.parametrize(
    ("host", "listens"), [("127.0.0.1", "127.0.0.1:8000"), ("::", "[::]:8000")], ids=["version 4", "version 6"]
)
def test_systemd_listens_and_the_service_does_not(tmp_path, host, listens):
    found = units(tmp_path, host=host)
    assert f"ListenStream={listens}\n" in found["edgedl-scale.socket"]
    assert "--port" not in found["edgedl-scale.service"]
    assert "WantedBy=sockets.target" in found["edgedl-scale.socket"]


def test_a_trial_listens_where_nobody_asks_and_has_no_place_in_the_boot(tmp_path):
    found = units(tmp_path, trial=True)
    assert sorted(found) == ["edgedl-scale.trial.service", "edgedl-scale.trial.socket"]
    assert "ListenStream=%t/edgedl-scale.trial.sock\n" in found["edgedl-scale.trial.socket"]
    assert "[Install]" not in "".join(found.values())
    own = set(units(tmp_path)["edgedl-scale.service"].splitlines())
    restrictions = [line for line in own if re.match(r"(Protect|Private|Restrict|Memory|System|NoNew|Capab)", line)]
    assert len(restrictions) > 15
    assert set(restrictions) <= set(found["edgedl-scale.trial.service"].splitlines())


def test_a_service_that_asks_for_keys_knows_their_digests_only(tmp_path):
    lines = [f"phone:{'a' * 64}", f"edgedl-deploy:{'b' * 64}"]
    text = units(tmp_path, keys=lines)["edgedl-scale.service"]
    assert f'Environment="EDGEDL_API_KEYS={lines[0]},{lines[1]}"\n' in text


def test_without_name_spaces_of_users_no_setting_is_written_that_systemd_would_ignore(tmp_path):
    text = units(tmp_path, sandbox=False)["edgedl-scale.service"]
    assert "NoNewPrivileges=yes" in text
    assert "Protect" not in text
    assert "Private" not in text


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed (systemd)")
def test_systemd_takes_the_units(tmp_path):
    bundle = tmp_path / "a folder with 100% of $HOME"
    for name, text in (units(bundle) | units(bundle, trial=True)).items():
        (tmp_path / name).write_text(text)
    services = sorted(map(str, tmp_path.glob("*.service")))
    words = [ANALYZE, "verify", "--man=no", "--recursive-errors=no", *services]
    environment = {"SYSTEMD_LOG_LEVEL": "warning", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "edgedl-" in line]) == (0, [])


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed (systemd)")
@pytest.mark.parametrize(("sandbox", "most"), [(True, 25), (False, 55)], ids=["sandbox", "no sandbox"])
def test_systemd_finds_the_service_well_shut(tmp_path, sandbox, most):
    path = tmp_path / "edgedl-scale.service"
    path.write_text(units(tmp_path, sandbox=sandbox)["edgedl-scale.service"])
    words = [ANALYZE, "security", "--offline=yes", f"--threshold={most}", "--no-pager", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze is older than --offline, which came with version 250")
    assert done.returncode == 0, done.stdout[-400:] + done.stderr
