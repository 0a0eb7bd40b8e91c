"""Runs a service in the root of an image, as an engine would: ``unshare … python namespace.py ORDER``.

The root is read only; /proc, /sys, a small /dev and an empty /dev/shm are mounted as Docker does. The user is the
image's. It prints a JSON document: seconds and processor time until the health check passed, memory, what the asking
program printed, and whether the root could be written.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PATIENCE = 240.0
"""Seconds until the health check has to pass; under emulation everything takes thirty times as long."""

CHROOT = shutil.which("chroot") or "chroot"
CPUINFO = """processor\t: 0
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3
"""
"""Of a Cortex-A72, which is what qemu is told to be. It would show this machine's own otherwise."""

WRITABLE = "import os; print(os.getuid(), os.access('/', os.W_OK), os.access('/opt/edgedl', os.W_OK))"


def mount(*words: str) -> None:
    """Mounts something in this namespace."""
    subprocess.run(["mount", *words], check=True)


def prepare(root: Path, mounts: dict[str, str], emulator: str | None) -> None:
    """Mounts what an engine mounts, and makes the rest read only."""
    mount("--make-rprivate", "/")
    mount("--bind", str(root), str(root))
    for place in ("proc", "sys", "dev", *(place.lstrip("/") for place in mounts)):
        (root / place).mkdir(parents=True, exist_ok=True)
    if emulator is not None:
        (root / "emulator").touch()
        mount("--bind", emulator, str(root / "emulator"))
    for place, folder in mounts.items():
        mount("--bind", "-o", "ro", folder, str(root / place.lstrip("/")))
    mount("-o", "remount,bind,ro", str(root))
    mount("-t", "proc", "proc", str(root / "proc"))
    mount("-t", "sysfs", "-o", "ro", "sysfs", str(root / "sys"))
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(root / "dev"))
    if emulator is not None:
        (root / "dev/cpuinfo").write_text(CPUINFO)
        mount("--bind", str(root / "dev/cpuinfo"), str(root / "proc/cpuinfo"))
    for name, minor in (("null", 3), ("zero", 5), ("random", 8), ("urandom", 9)):
        os.mknod(root / "dev" / name, 0o20666, os.makedev(1, minor))
        (root / "dev" / name).chmod(0o666)
    (root / "dev/shm").mkdir(mode=0o1777)
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(root / "dev/shm"))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


class Container:
    """Starts programs in the root as the image's user."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.root, self.emulator = Path(order["root"]), order["emulator"]
        self.environment = dict(line.split("=", 1) for line in order["environment"])
        self.user = order["user"]
        if self.emulator is not None:
            self.environment["QEMU_CPU"] = "cortex-a72"

    def words(self, command: list[str]) -> list[str]:
        """The command line of a program of the image."""
        user, _, group = self.user.partition(":")
        start = [CHROOT, f"--userspec={user}:{group or user}", str(self.root)]
        path = next(
            f"{folder}/{command[0]}"
            for folder in self.environment["PATH"].split(":")
            if (self.root / folder.lstrip("/") / command[0]).exists()
        )
        if self.emulator is None:
            return [*start, path, *command[1:]]
        # The kernel does not know the processor: the emulator is called with the program, and a script's interpreter.
        first = (self.root / path.lstrip("/")).read_bytes()[:80].split(b"\n")[0]
        script = [first[2:].decode().strip()] if first.startswith(b"#!") else []
        return [*start, "/emulator", *script, path, *command[1:]]

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end."""
        return subprocess.run(
            self.words(command), env=self.environment, capture_output=True, text=True, check=False, timeout=PATIENCE
        )


def resident(process: int) -> tuple[float, float]:
    """MB that a process and its children hold, and the most that each held at once, added up."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    status = Path(f"/proc/{process}/status").read_text()
    smaps = Path(f"/proc/{process}/smaps_rollup").read_text()
    now = sum(int(line.split()[1]) for line in smaps.splitlines() if line.startswith("Pss:"))
    most = sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    parts = [resident(int(child)) for child in children]
    return now * 1024 / 1e6 + sum(part[0] for part in parts), most * 1024 / 1e6 + sum(part[1] for part in parts)


def processor_seconds(process: int) -> float:
    """What a process and its children have computed so far."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + sum(
        map(processor_seconds, map(int, children))
    )


def main(order: dict[str, Any]) -> int:
    """Runs the service, waits, asks, and prints."""
    prepare(Path(order["root"]), order["mounts"], order["emulator"])
    mount("-t", "proc", "proc", "/proc")
    container = Container(order)
    begin = time.monotonic()
    service = subprocess.Popen(container.words(order["command"]), env=container.environment, stderr=subprocess.PIPE)
    try:
        health = container.run(order["health"])
        while health.returncode and service.poll() is None and time.monotonic() < begin + PATIENCE:
            health = container.run(order["health"])
        seconds = time.monotonic() - begin
        if health.returncode:
            service.kill()
            print(health.stderr, service.communicate()[1].decode(), file=sys.stderr)
            return 1
        computed = processor_seconds(service.pid)
        before = resident(service.pid)
        asked = container.run(["python3", "-c", order["ask"]])
        if asked.returncode:
            print(asked.stderr, file=sys.stderr)
            return 1
        now, most = resident(service.pid)
        user, at_root, at_files = container.run(["python3", "-c", WRITABLE]).stdout.split()
    finally:
        service.send_signal(signal.SIGTERM)
    _, said = service.communicate(timeout=60)
    document = {
        "ready_seconds": seconds,
        "ready_processor_seconds": computed,
        "idle_mb": before[0],
        "asked_mb": now,
        "most_mb": most,
        "answer": json.loads(asked.stdout),
        "user": int(user),
        "writable": [at_root, at_files] != ["False", "False"],
        "status": service.returncode,
        "stderr": said.decode(),
    }
    print("\n" + json.dumps(document))
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
