"""A real sshd on loopback, with keys of its own."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
NEEDS = ("ssh", "ssh-keygen")


def reason_against_sshd() -> str | None:
    """Why no sshd can be started here."""
    missing = [name for name in NEEDS if shutil.which(name) is None] + ([] if SSHD else ["sshd"])
    if missing:
        return f"{' and '.join(missing)} not installed (openssh-client, openssh-server)"
    if os.geteuid() == 0 and not Path("/run/sshd").is_dir() and not os.access("/run", os.W_OK):
        return "sshd run by root needs the folder /run/sshd"
    return None


@dataclass(frozen=True, slots=True)
class Sshd:
    """A running server.

    Attributes:
        url: Of the device.
        config: The configuration that a client needs.
    """

    url: str
    config: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def sshd(
    folder: Path, user: str | None = None, environment: Mapping[str, str] | None = None, around: Sequence[str] = ()
) -> Iterator[Sshd]:
    """Runs the server until the block ends.

    Args:
        folder: For keys and configurations.
        user: Who may log in; None takes the user of this process.
        environment: What logins find in theirs.
        around: A command that runs the server's.
    """
    assert SSHD is not None
    user, port = user or getpass.getuser(), free_port()
    for name in ("host", "login"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / name)]
        subprocess.run(words, check=True)
    keys = folder / "keys"
    shutil.copy(folder / "login.pub", keys)
    keys.chmod(0o644)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    lines = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {folder / 'host'}",
        f"AuthorizedKeysFile {keys}",
        f"AllowUsers {user}",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "UsePAM no",
        "StrictModes no",
        "PidFile none",
        "LogLevel ERROR",
        "PrintMotd no",
        *(f"SetEnv {' '.join(f'{key}={value}' for key, value in environment.items())}" for _ in [0] if environment),
    ]
    configuration = folder / "sshd_config"
    configuration.write_text("\n".join([*lines, ""]))
    host_key = (folder / "host.pub").read_text().strip()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    config = folder / "ssh_config"
    config.write_text(
        f"Host *\nIdentityFile {folder / 'login'}\nIdentitiesOnly yes\nUserKnownHostsFile {folder / 'known_hosts'}\n"
        "GlobalKnownHostsFile /dev/null\nLogLevel ERROR\n"
    )
    server = subprocess.Popen([*around, SSHD, "-D", "-e", "-f", str(configuration)], stderr=subprocess.PIPE)
    try:
        wait_for_port(port, server)
        yield Sshd(f"ssh://{user}@127.0.0.1:{port}", config)
    finally:
        server.kill() if around else server.terminate()  # the end of `unshare` ends everything within
        server.wait(timeout=20)
        assert server.stderr is not None
        server.stderr.close()


def wait_for_port(port: int, server: subprocess.Popen[bytes], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > end:
                assert server.stderr is not None
                said = server.stderr.read() if server.poll() is not None else b"it does not listen"
                raise RuntimeError(said.decode(errors="replace")) from None
            time.sleep(0.05)


def home_of(user: str) -> Path:
    return Path(pwd.getpwnam(user).pw_dir)
