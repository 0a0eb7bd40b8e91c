"""A device on this machine: another user, with a real ``systemd --user`` and a real sshd.

All of it lives in name spaces of its own, which end with the test. It needs root, and a kernel that lets it.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.edgedl.deploy.sshd import free_port, reason_against_sshd, sshd

USER = "edgedl-device"
SYSTEMD = Path("/lib/systemd/systemd")

# What the manager of a user finds on a machine that was booted with systemd.
ENTER = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run/systemd
mkdir -p /run/systemd/system /run/user/{uid} /var/lib/systemd/linger
mount -t tmpfs tmpfs /var/lib/systemd/linger
touch /var/lib/systemd/linger/{user}
mount -t tmpfs -o uid={uid},gid={gid},mode=700 tmpfs /run/user/{uid}
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/{user}
chown -R {uid}:{gid} /sys/fs/cgroup/{user}
echo $$ > /sys/fs/cgroup/{user}/cgroup.procs
{more}
setpriv --reuid {uid} --regid {gid} --init-groups env -i HOME={home} USER={user} XDG_RUNTIME_DIR=/run/user/{uid} \
  PATH=/usr/bin:/bin {systemd} --user >{log} 2>&1 &
exec "$@"
"""


def reason_against_site() -> str | None:
    """Why there can be no such device here."""
    if os.geteuid() != 0:
        return "needs root, to make a user and name spaces"
    missing = [name for name in ("unshare", "setpriv", "useradd", "systemctl") if shutil.which(name) is None]
    if missing or not SYSTEMD.exists():
        return f"{' and '.join(missing) or 'systemd'} not installed"
    probe = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", "mount -t cgroup2 c /sys/fs/cgroup"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        return "the kernel does not let name spaces and control groups be made here"
    return reason_against_sshd()


@dataclass(frozen=True, slots=True)
class Site:
    """The device.

    Attributes:
        url: For `edgedl deploy`.
        config: The configuration of ssh that reaches it.
        home: Of its user.
        port: A free one, for the service.
    """

    url: str
    config: Path
    home: Path
    port: int

    def run(self, command: str, timeout: float = 60.0) -> str:
        """The output of a command of its user."""
        host, _, port = self.url.removeprefix("ssh://").rpartition(":")
        words = [
            "ssh",
            "-F",
            str(self.config),
            "-p",
            port,
            host,
            f"XDG_RUNTIME_DIR=/run/user/$(id -u) sh -c {shlex.quote(command)}",
        ]
        return subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False).stdout


@contextmanager
def site(more: str = "") -> Iterator[Site]:
    """The device, until the block ends.

    Args:
        more: Further commands that prepare it, such as mounts.
    """
    subprocess.run(["userdel", "--remove", USER], capture_output=True, check=False)
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", "--password", "*", USER], check=True)
    entry = pwd.getpwnam(USER)
    # Not a folder of pytest's, which the user of the device could not read.
    folder = Path(tempfile.mkdtemp(prefix="edgedl-site-"))
    folder.chmod(0o755)
    script = folder / "enter.sh"
    script.write_text(
        ENTER.format(
            uid=entry.pw_uid, gid=entry.pw_gid, user=USER, home=entry.pw_dir, systemd=SYSTEMD, more=more,
            log=folder / "systemd.log",
        )
    )  # fmt: skip
    around = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", str(script)]
    try:
        with sshd(folder, USER, around=around) as server:
            found = Site(server.url, server.config, Path(entry.pw_dir), free_port())
            end = time.monotonic() + 30
            while found.run("systemctl --user is-system-running").strip() not in ("running", "degraded"):
                if time.monotonic() > end:
                    raise RuntimeError((folder / "systemd.log").read_text())
                time.sleep(0.2)
            yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run(["userdel", "--remove", USER], capture_output=True, check=False)
        # The control groups of its services are empty now, and stay until they are removed.
        groups = ["find", f"/sys/fs/cgroup/unified/{USER}", "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]
        subprocess.run(groups, capture_output=True, check=False)
