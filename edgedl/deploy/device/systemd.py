"""The units of a deployment under the user's own service manager.

systemd holds the listening socket. So it outlives every restart of the service: whoever connects meanwhile waits, and
is answered by the next process.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgedl.deploy.device.channel import Refused
from edgedl.deploy.device.store import first_words, write_text

COMMAND_SECONDS = 120
BACK = ".edgedl-back"

HARDENING = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
UMask=0077
LimitCORE=0
TasksMax=256
"""
"""What every service manager of a user can do."""

SANDBOX = """\
PrivateUsers=yes
ProtectSystem=strict
PrivateTmp=yes
PrivateMounts=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
"""
"""What needs namespaces of users, which some kernels refuse. Without `PrivateUsers` systemd leaves the rest out and
says nothing."""


def texts(root: Path, name: str, served: Path, record: dict[str, Any], trial: bool = False) -> dict[str, str]:
    """The units of a release by file name.

    Args:
        root: The folder of all deployments.
        name: Of the deployment.
        served: The path of the bundle.
        record: Of the release.
        trial: Whether it is tried beside the one that answers: at a Unix socket, without a place in the boot.
    """
    service = record["service"]
    unit = unit_name(name, trial)
    command = [record["python"], "-m", "edgedl", "serve", f"{name}={served}", "--watch", *service["arguments"]]
    socket = [
        "[Unit]",
        f"Description=Where edgedl listens for {name}",
        "",
        "[Socket]",
        f"ListenStream={f'%t/{unit}.sock' if trial else address(service)}",
        "SocketMode=0600",
        "Backlog=512",
        "NoDelay=yes",
        *([] if trial else ["", "[Install]", "WantedBy=sockets.target"]),
    ]
    lines = [
        "[Unit]",
        f"Description=edgedl serves {name}",
        f"Requires={unit}.socket",
        f"After={unit}.socket",
        "",
        "[Service]",
        "Type=exec",
        f"ExecStart={' '.join(quoted(word) for word in command)}",
        "Environment=ORT_DISABLE_TELEMETRY=1 PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1",
        *([f"Environment={quoted('EDGEDL_API_KEYS=' + ','.join(service['keys']))}"] if service["keys"] else []),
        "KillMode=mixed",
        "TimeoutStopSec=45",
        *(
            [f"StandardError=truncate:{_told(str(log(root, name)))}"]
            if trial
            else ["Restart=on-failure", "RestartSec=2"]
        ),
        f"MemoryMax={service['memory']}",
        *HARDENING.splitlines(),
        *(_sandbox(root, record) if service["sandbox"] else []),
        *([] if trial else ["", "[Install]", "WantedBy=default.target"]),
    ]
    return {f"{unit}.socket": "\n".join([*socket, ""]), f"{unit}.service": "\n".join([*lines, ""])}


def _sandbox(root: Path, record: dict[str, Any]) -> list[str]:
    lines = [
        *SANDBOX.splitlines(),
        f"ProtectHome={'tmpfs' if _outside_of_home(record['python'], root) else 'read-only'}",
    ]
    lines += [f"BindReadOnlyPaths={quoted(str(root))}"]
    return [*lines, "PrivateDevices=yes"] if record["service"]["private_devices"] else lines


def unit_name(name: str, trial: bool = False) -> str:
    """What both units of a deployment are called. Names of deployments have no dot, so nothing else is called so."""
    return "edgedl-{}{}".format(name, ".trial" if trial else "")


def address(service: dict[str, Any]) -> str:
    """Where a service listens, as systemd writes it."""
    host = service["host"]
    return f"[{host}]:{service['port']}" if ":" in host else f"{host}:{service['port']}"


def log(root: Path, name: str) -> Path:
    """What a service says while it is tried."""
    return root / "deployments" / name / "trial.log"


def quoted(word: str) -> str:
    """A word of a command or a path, as systemd reads it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$").replace("\n", "\\n")
    return f'"{escaped}"'


class Units:
    """The units of one deployment: written, started, put back.

    Args:
        name: Of the deployment.
    """

    def __init__(self, name: str) -> None:
        home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        self.folder = home / "systemd" / "user"
        self.socket, self.service = f"{unit_name(name)}.socket", f"{unit_name(name)}.service"
        self.trial = [unit_name(name, trial=True) + kind for kind in (".socket", ".service")]

    def found(self) -> dict[str, str]:
        """The units that are there."""
        paths = (self.folder / unit for unit in (self.socket, self.service))
        return {path.name: path.read_text() for path in paths if path.is_file()}

    def write(self, units: dict[str, str], keep: bool = True) -> None:
        """Writes units; what they replace is kept aside for the way back, unless told otherwise."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for unit, text in units.items():
            path, back = self.folder / unit, self.folder / (unit + BACK)
            if keep and path.is_file() and not back.exists():
                os.link(str(path), str(back))
            write_text(path, text)
        self.control("daemon-reload")

    def written(self) -> bool:
        """Whether `write` has replaced something that `settle` or `put_back` has not seen to."""
        return any((self.folder / (unit + BACK)).exists() for unit in (self.socket, self.service))

    def put_back(self) -> None:
        """Undoes `write`."""
        for unit in (self.socket, self.service):
            back = self.folder / (unit + BACK)
            if back.exists():
                back.replace(self.folder / unit)
        self.control("daemon-reload")

    def settle(self) -> None:
        """Forgets what `write` has kept aside."""
        for unit in (self.socket, self.service):
            back = self.folder / (unit + BACK)
            if back.exists():
                back.unlink()

    def remove(self, units: list[str]) -> None:
        """Stops units and takes them away."""
        self.control("disable", "--now", *units, check=False)
        self.control("stop", *units, check=False)
        for unit in units:
            if (self.folder / unit).exists():
                (self.folder / unit).unlink()
        self.control("daemon-reload")
        self.control("reset-failed", *units, check=False)

    def active(self, unit: str) -> bool:
        """Whether a unit runs."""
        return self.control("is-active", "--quiet", unit, check=False) == 0

    def failure(self, unit: str) -> Callable[[], str | None]:
        """What tells why a service has ended since now; None as long as it has not."""
        before = self.shown(unit, "NRestarts").get("NRestarts")

        def told() -> str | None:
            shown = self.shown(unit, "ActiveState", "Result", "ExecMainStatus", "NRestarts")
            if shown.get("ActiveState") in ("active", "activating", "reloading") and shown.get("NRestarts") == before:
                return None
            return "systemd says {}, exit status {}".format(shown.get("Result"), shown.get("ExecMainStatus"))

        return told

    def shown(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit."""
        output = subprocess.run(
            ["systemctl", "--user", "show", "--property", ",".join(properties), unit],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=COMMAND_SECONDS,
            env=environment(),
        ).stdout.decode(errors="replace")
        return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)

    def control(self, *words: str, check: bool = True) -> int:
        """Runs ``systemctl --user``.

        Raises:
            Refused: It says no.
        """
        done = subprocess.run(
            ["systemctl", "--user", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS,
            env=environment(),
        )
        if check and done.returncode:
            said = first_words(done.stdout.decode(errors="replace").splitlines()[:1])
            raise Refused("systemctl --user {}: {}".format(" ".join(words), said))
        return done.returncode


def manager() -> str | None:
    """Why there is no service manager of the user; None where there is one."""
    if shutil.which("systemctl") is None:
        return "it has no systemd; deploy with --no-service, and let what is there run the service"
    done = subprocess.run(
        ["systemctl", "--user", "show", "--property", "Version"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=COMMAND_SECONDS,
        env=environment(),
    )
    if done.returncode:
        said = first_words(done.stdout.decode(errors="replace").splitlines()[:1])
        return f"no service manager runs for this user there ({said}); deploy with --no-service, or start one"
    user = pwd.getpwuid(os.getuid()).pw_name
    lingers = Path("/var/lib/systemd/linger") / user
    if not lingers.exists() and shutil.which("loginctl"):
        subprocess.run(
            ["loginctl", "enable-linger"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    if not lingers.exists():
        return f"services of {user} end with the last login there; run once, there: sudo loginctl enable-linger {user}"
    return None


def can_sandbox() -> bool:
    """Whether the service manager may use namespaces of users."""
    if shutil.which("systemd-run") is None:
        return False
    command = [
        "systemd-run",
        "--user",
        "--wait",
        "--quiet",
        "--collect",
        "-p",
        "PrivateUsers=yes",
        "-p",
        "ProtectSystem=strict",
    ]
    done = subprocess.run(
        [*command, "true"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=COMMAND_SECONDS,
        env=environment(),
    )
    return done.returncode == 0


def environment() -> dict[str, str]:
    """Where ``systemctl --user`` finds its manager: a login without PAM lacks the variable."""
    return {"XDG_RUNTIME_DIR": runtime_folder(), **os.environ, "LC_ALL": "C"}


def runtime_folder() -> str:
    """Where sockets of the user's services lie."""
    return os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"


def _outside_of_home(path: str, root: Path) -> bool:
    """Whether an interpreter is still there when the homes of users are hidden, but for the folder of deployments."""
    return path.startswith(f"{root}{os.sep}") or not path.startswith(("/home/", "/root/"))


def _told(text: str) -> str:
    return text.replace("%", "%%").replace("\n", " ")
