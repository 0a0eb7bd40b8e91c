"""What each profile costs a device: bytes on disk, memory, and the time until it answers.

    python benchmarks/profiles.py age.edge photo.jpg [--write]

A profile is a set of extras. Each is installed into a folder as the Dockerfile does it, with the versions of
constraints.txt, then trimmed by image/trim.py and compiled. `installed_mb` is what pip installs, `trimmed_mb` what the
image holds of it. A fresh process then goes from nothing to an answer: the recorded timer, a photo, or a service that
says where it is. `resident_mb` is what it holds once it has answered (of a service all its processes, memory that they
share counted once). Figures are medians.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "profiles.json"

TIMER = """
import sys, numpy as np, edgedl
with edgedl.load(sys.argv[1]) as timer:
    timer.predict({"u": np.zeros((1, 8, 2), np.float32)})
    print(open("/proc/self/smaps_rollup").read())
"""
PHOTO = """
import sys, edgedl
with edgedl.load(sys.argv[1]) as age:
    assert age.faces(sys.argv[2])
    print(open("/proc/self/smaps_rollup").read())
"""


@dataclass(frozen=True, slots=True)
class Profile:
    """Extras, and the program that shows them at work; None starts the service."""

    extras: str
    does: str
    program: str | None


PROFILES = (
    Profile("cpu", "a timer in Python", TIMER),
    Profile("cpu,media", "a photo in Python", PHOTO),
    Profile("cpu,media,video", "a photo in Python", PHOTO),
    Profile("cpu,serve", "the service", None),
    Profile("cpu,serve,sign", "the service", None),
    Profile("cpu,serve,video", "the service", None),
)


def size_mb(folder: Path) -> float:
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 1)


def install(wheel: Path, extras: str, folder: Path) -> tuple[float, float]:
    """Installs a profile; gives what it weighs, whole and trimmed."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder]
    subprocess.run([*pip, "-c", ROOT / "constraints.txt", f"{wheel}[{extras}]"], check=True)
    whole = size_mb(folder)
    for path in sorted(folder.rglob("*.pyc")):
        path.unlink()
    subprocess.run([sys.executable, ROOT / "image" / "trim.py", folder], check=True, stdout=subprocess.DEVNULL)
    compiling = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", folder]
    subprocess.run(compiling, check=True)
    return whole, size_mb(folder)


def held_mb(process: int) -> float:
    """What a process and its children hold."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return share_mb(Path(f"/proc/{process}/smaps_rollup").read_text()) + sum(held_mb(int(child)) for child in children)


def share_mb(rollup: str) -> float:
    return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024 / 1e6


def spent(before: os.times_result) -> float:
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def start(folder: Path, profile: Profile, inputs: tuple[Path, Path, Path]) -> tuple[float, float, float]:
    """From nothing to an answer: seconds, seconds of processor time, MB."""
    timer, age, photo = inputs
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    before, begin = os.times(), time.perf_counter()
    if profile.program is not None:
        given = [timer] if profile.program == TIMER else [age, photo]
        command = [sys.executable, "-P", "-c", profile.program, *given]
        told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        return time.perf_counter() - begin, spent(before), share_mb(told)
    command = [sys.executable, "-P", "-m", "edgedl", "serve", str(age), "--port", "0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        assert service.stdout.readline().startswith("Serving")
        elapsed, processor, held = time.perf_counter() - begin, processor_s(service.pid), held_mb(service.pid)
        service.send_signal(signal.SIGTERM)
    return elapsed, processor, held


def processor_s(process: int) -> float:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK") + sum(processor_s(int(child)) for child in children)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("photo")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from runtime.machine import describe_machine

    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        timer = folder / "timer.edge"
        timer.write_bytes(lzma.decompress((ROOT / "tests/frozen/timer-lstm.edge.xz").read_bytes()))
        inputs = (timer, Path(args.bundle).resolve(), Path(args.photo).resolve())
        subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT], check=True)
        (wheel,) = folder.glob("*.whl")
        for profile in PROFILES:
            place = folder / profile.extras
            whole, trimmed = install(wheel, profile.extras, place)
            rounds = [start(place, profile, inputs) for _ in range(args.rounds + 1)][1:]  # the first reads the disk
            elapsed, processor, held = (round(statistics.median(values), 2) for values in zip(*rounds, strict=True))
            rows.append({
                "extras": profile.extras, "does": profile.does, "installed_mb": whole, "trimmed_mb": trimmed,
                "resident_mb": round(held), "cold_start_s": elapsed, "cold_start_processor_s": processor,
            })  # fmt: skip
            print(json.dumps(rows[-1]), file=sys.stderr)
    result = {"profiles": rows, "limits": {"cpu,serve trimmed_mb": 230}, "machine": describe_machine()}
    result["ok"] = all(row["trimmed_mb"] <= 230 for row in rows if row["extras"] == "cpu,serve")
    print(json.dumps(result, indent=1))
    if args.write:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
