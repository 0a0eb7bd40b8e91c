"""20,000 pictures, 200 of them damaged: each answered once though driver and process are killed; and files a second.

    python benchmarks/many_files.py age.edge [--ray] [--files 20000] [--write]

The driver is killed in the first third, a process of its pool in the second. Then a loop over one engine with one
thread answers 2,000 of the files, against pools of one and of two processes in turns, on Ray with `--ray`.
The start and the end of a pool are left out: time runs from the first part that is done to the last.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
from pyarrow import parquet

from edgedl.data.synthetic_faces import scene
from edgedl.deploy.many.answering import Answerer, Setting
from edgedl.deploy.many.inputs import Item, list_inputs
from edgedl.deploy.many.processes import answer_on_cores
from edgedl.deploy.many.results import Results, Run
from runtime.bundle import Bundle
from runtime.machine import describe_machine

RESULT = Path(__file__).parent / "results" / "many_files.json"
SCENES, SIDE = 200, 256


def make_pictures(folder: Path, number: int, damaged: int) -> None:
    """Painted scenes, each file with a brightness of its own; every so many files one is cut short."""
    scenes = [cv2.cvtColor(scene(seed, faces=1 + seed % 2, size=SIDE)[0], cv2.COLOR_RGB2BGR) for seed in range(SCENES)]
    for place in range(number):
        picture = cv2.convertScaleAbs(scenes[place % SCENES], alpha=1 - place // SCENES / (4 * number / SCENES))
        encoded = cv2.imencode(".jpg", picture)[1].tobytes()
        below = folder / f"{place // 1000:03d}"
        below.mkdir(exist_ok=True)
        cut = place % (number // damaged) == 7
        (below / f"{place:06d}.jpg").write_bytes(encoded[: len(encoded) // 2] if cut else encoded)


def killed_twice(bundle: str, folder: Path, out: Path, number: int, ray: bool) -> dict[str, Any]:
    """Kills the driver, begins again, kills a process, and begins again if that ended the driver."""
    command = [
        sys.executable,
        "-m",
        "edgedl",
        "predict",
        bundle,
        str(folder),
        "-o",
        str(out),
        *(["--ray"] if ray else []),
    ]

    def parts() -> int:
        return len(list(out.glob("part-*.parquet")))

    def wait_for(share: float, driver: subprocess.Popen[bytes]) -> None:
        while parts() < share * number / 256 and driver.poll() is None:
            time.sleep(0.1)

    begin = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as driver:
        wait_for(0.2, driver)
        os.killpg(driver.pid, signal.SIGKILL) if ray else driver.kill()
    first = parts()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        wait_for(0.6, driver)
        worker = "MapWorker" if ray else "spawn_main"
        found = subprocess.run(["pgrep", "-f", worker], capture_output=True, text=True, check=False).stdout.split()
        if found:
            os.kill(int(found[0]), signal.SIGKILL)
        status = driver.wait()
    seconds = time.perf_counter() - begin
    rows = parquet.read_table(out, columns=["name", "error"]).to_pylist()
    names = [row["name"] for row in rows]
    return {
        "files": len(rows), "distinct": len(set(names)), "errors": sum(bool(row["error"]) for row in rows),
        "parts_before_the_first_kill": first, "killed_processes": 1 + bool(found), "status": status,
        "seconds": round(seconds, 1),
        "peak_memory_mb_of_a_process": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3),
    }  # fmt: skip


def files_a_second(items: list[Item], setting: Setting, run: Callable[[Results, Callable[[int], None]], None]) -> float:
    """From the first part that is done to the last."""
    with tempfile.TemporaryDirectory() as folder:
        results = Results(Path(folder) / "out", Run(setting.digest, "fp32", {}, "x", len(items), part=64))
        times: list[tuple[float, int]] = []
        lock = threading.Lock()

        def told(number: int) -> None:
            with lock:
                times.append((time.perf_counter(), number))

        run(results, told)
    (begin, first), (end, _) = times[0], times[-1]
    return (sum(number for _, number in times) - first) / (end - begin)


def efficiency(items: list[Item], setting: Setting, ray: bool, rounds: int) -> dict[str, Any]:
    """The loop against one and two processes, in turns."""

    def pool(workers: int) -> Callable[[Results, Callable[[int], None]], None]:
        if not ray:
            return lambda results, told: answer_on_cores(items, results, setting, workers, told)
        from edgedl.deploy.many.cluster import LOCAL, answer_on_ray

        return lambda results, told: answer_on_ray(items, results, setting, LOCAL, workers, told)

    def loop(_: Results, told: Callable[[int], None]) -> None:
        answerer = Answerer(setting)
        for begin in range(0, len(items), 64):
            told(len(answerer.answer(items[begin : begin + 64])))

    seen: dict[str, list[float]] = {"loop": [], "one": [], "two": []}
    for _ in range(rounds):
        for name, run in (("loop", loop), ("one", pool(1)), ("two", pool(2))):
            seen[name].append(files_a_second(items, setting, run))
    ratios = {name: statistics.median(a / b for a, b in zip(seen[name], seen["loop"], strict=True)) for name in seen}
    return {
        name: {"files_a_second": round(statistics.median(values), 1), "ratio": round(ratios[name], 2)}
        for name, values in seen.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--damaged", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    setting = Setting(args.bundle, Bundle.open(args.bundle).digest)
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "in"
        pictures.mkdir()
        make_pictures(pictures, args.files, args.damaged)
        result = {
            "ray": args.ray,
            "killed": killed_twice(args.bundle, pictures, Path(folder) / "out", args.files, args.ray),
            "speed": efficiency(list_inputs([str(pictures)])[:2000], setting, args.ray, args.rounds),
            "machine": describe_machine(),
        }
    print(json.dumps(result, indent=1))
    if args.write:
        held = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        RESULT.write_text(
            json.dumps(held | {"ray" if args.ray else "cores": result}, indent=1) + "\n", encoding="utf-8"
        )
    killed = result["killed"]
    return int((killed["files"], killed["distinct"], killed["errors"]) != (args.files, args.files, args.damaged))


if __name__ == "__main__":
    sys.exit(main())
