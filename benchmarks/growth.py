"""What a photo, a name and a part cost, and time against the number of workers: the figures of docs/growth.md.

    python benchmarks/growth.py age.edge [--only stages driver workers ray] [--write]

Costs are processor time, the least of some rounds: other programs on the machine only add to it. `ray` needs the extra
`ray`, and is measured only where it is named. `--write` keeps what was measured, and draws docs/workers.png.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np

import runtime.media.pictures
from edgedl.data.synthetic_faces import scene
from edgedl.deploy.many.answering import TOGETHER, Answerer, Setting
from edgedl.deploy.many.inputs import Item, list_inputs
from edgedl.deploy.many.results import PART, Results, Run
from edgedl.deploy.many.tables import Row, write_rows
from runtime.bundle import Bundle
from runtime.engine import Engine
from runtime.machine import describe_machine, peak_memory_mb

ROOT = Path(__file__).parents[1]
RESULT, PICTURE = ROOT / "benchmarks" / "results" / "growth.json", ROOT / "docs" / "workers.png"
SIDES = {"small": (256, PART), "photo": (1600, 24)}
"""Pixels of a side, and how many pictures."""

NOISE, QUALITY = 4.0, 90
NAMES, ROUNDS, STAGE_ROUNDS = 1_000_000, 3, 5
FILES, WORKERS = (512, 1024), (1, 2)
RAY_PARTS = (100, 1100)


def make_photos(folder: Path, side: int, number: int) -> list[Item]:
    """Painted scenes of one or two faces with the noise of a camera, which makes them as large as photos are."""
    folder.mkdir()
    chance = np.random.default_rng(side)
    for place in range(number):
        seed = place % PART
        painted = scene(seed, faces=1 + seed % 2, size=side)[0].astype(np.float32)
        noisy = np.clip(painted + NOISE * chance.standard_normal(painted.shape, np.float32), 0, 255).astype(np.uint8)
        encoded = cv2.imencode(".jpg", cv2.cvtColor(noisy, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        (folder / f"{place:06d}.jpg").write_bytes(encoded.tobytes())
    return list_inputs([str(folder)])


@dataclass
class Watch:
    """Processor time inside of some functions."""

    seconds: float = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            begin = time.process_time()
            try:
                return function(*args, **options)
            finally:
                self.seconds += time.process_time() - begin

        return timed


@contextmanager
def watched() -> Iterator[tuple[Watch, Watch]]:
    """Decoding and graphs."""
    decode, graph = Watch(), Watch()
    read, run = runtime.media.pictures._read, Engine.run
    with (
        mock.patch.object(runtime.media.pictures, "_read", decode.around(read)),
        mock.patch.object(Engine, "run", graph.around(run)),
    ):
        yield decode, graph


def stages(bundle: str, folder: Path) -> dict[str, Any]:
    """Milliseconds of processor time and bytes for each photo; of each group the least of some rounds."""
    setting = Setting(bundle, Bundle.open(bundle).digest)
    answerer = Answerer(setting)
    kinds = {kind: make_photos(folder / kind, *size) for kind, size in SIDES.items()}
    answerer.answer(kinds["small"][:8])
    seen: dict[str, list[list[tuple[float, ...]]]] = {kind: [] for kind in kinds}
    rows: dict[str, list[Row]] = {}
    for _ in range(STAGE_ROUNDS):
        for kind, items in kinds.items():
            rows[kind], groups = [], []
            for group in range(0, len(items), TOGETHER):
                with watched() as (decode, graph):
                    begin = time.process_time()
                    rows[kind] += answerer.answer(items[group : group + TOGETHER])
                    whole = time.process_time() - begin
                groups.append((decode.seconds, graph.seconds, whole - decode.seconds - graph.seconds))
            seen[kind].append(groups)
    return {
        "kinds": {
            kind: {
                "photos": len(items),
                "megapixels": round(SIDES[kind][0] ** 2 / 1e6, 2),
                "faces": round(sum(len(json.loads(row.answer)["faces"]) for row in rows[kind]) / len(items), 2),
                "bytes_in": round(statistics.mean(Path(item.place).stat().st_size for item in items)),
                **{
                    name: round(1e3 * seconds / len(items), 2)
                    for name, seconds in zip(
                        ("decode_ms", "graph_ms", "rest_ms"), np.min(seen[kind], axis=0).sum(axis=0), strict=True
                    )
                },
            }
            for kind, items in kinds.items()
        },
        "row": written(rows["small"], folder / "part.parquet"),
    }


def written(part: Sequence[Row], path: Path) -> dict[str, float]:
    """What a row of a whole part of the results costs."""
    times = []
    for _ in range(10):
        begin = time.process_time()
        write_rows(path, part)
        times.append(time.process_time() - begin)
    return {"write_ms": round(1e3 * min(times) / len(part), 3), "bytes_out": round(path.stat().st_size / len(part))}


def write_list(folder: Path) -> str:
    """A list of names as a data set of millions has them, as an INPUT."""
    names = folder / "list.txt"
    with names.open("w", encoding="utf-8") as file:  # line by line: memory that was freed would be taken again, unseen
        file.writelines(f"/data/photos/{n // 1000:06d}/{n:09d}.jpg\n" for n in range(NAMES))
    return f"@{names}"


def driver(folder: Path) -> dict[str, Any]:
    """What the process that deals out the parts pays, in microseconds and bytes a name and in milliseconds a part."""
    source = write_list(folder)
    memory, times = peak_memory_mb(), []
    for turn in range(ROUNDS):
        begin = time.process_time()
        items = list_inputs([source])
        run = Run.of("0" * 64, None, {}, items)
        times.append(time.process_time() - begin)
        if turn == 0:
            grown = peak_memory_mb() - memory
    seconds = min(times)
    results = Results(folder / "parts", run)
    begin = time.process_time()
    results.open_parts()
    opened = time.process_time() - begin
    counted = Results(folder / "counted", Run("0" * 64, "fp32", {}, "", 100 * PART, PART))
    answer = json.dumps({"faces": [{"box": [1.5, 2.5, 3.5, 4.5], "score": 0.9, "age": 30.5}]})
    for part in counted.open_parts():
        rows = [Row(item.name, "0" * 64, "0" * 64, answer, "") for item in items[counted.rows_of(part)]]
        write_rows(counted.path(part), rows)
    times = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        counted.count()
        times.append(time.process_time() - begin)
    counting = min(times)
    return {
        "names": NAMES,
        "name_us": round(1e6 * seconds / NAMES, 2),
        "name_bytes": round(1e6 * grown / NAMES),
        "part_open_ms": round(1e3 * opened / results.parts, 4),
        "part_count_ms": round(1e3 * counting / counted.parts, 3),
    }


TOLD = """
import resource, sys
from edgedl.cli import main
status = main(sys.argv[1:])
for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
    used = resource.getrusage(who)
    print(used.ru_utime + used.ru_stime)
sys.exit(status)
"""


def workers(bundle: str, folder: Path) -> dict[str, Any]:
    """The whole command: seconds of the clock, and of processor time of the driver and of all its workers."""
    make_photos(folder / "many", SIDES["small"][0], max(FILES))
    rows: dict[tuple[int, int], list[tuple[float, float, float]]] = {}
    for turn in range(ROUNDS):
        for files in FILES:
            names = folder / f"{files}.txt"
            names.write_text("\n".join(map(str, sorted((folder / "many").iterdir())[:files])), encoding="utf-8")
            for number in WORKERS:
                out = folder / f"out-{turn}-{files}-{number}"
                command = ["predict", bundle, f"@{names}", "-o", str(out), "--workers", str(number)]
                begin = time.perf_counter()
                told = subprocess.run(
                    [sys.executable, "-c", TOLD, *command], capture_output=True, text=True, check=True
                )
                elapsed = time.perf_counter() - begin
                mine, others = map(float, told.stdout.split()[-2:])
                rows.setdefault((files, number), []).append((elapsed, mine, others))
    return {
        "load": round(os.getloadavg()[1], 1),
        "rows": [
            {
                "files": files,
                "workers": number,
                **{
                    name: round(min(values), 2)
                    for name, values in zip(("seconds", "driver_s", "workers_s"), zip(*seen, strict=True), strict=True)
                },
            }
            for (files, number), seen in rows.items()
        ],
    }


class Nothing:
    """Stands in for the actor: what is left is what Ray and the driver cost."""

    def __init__(self, *_: Any) -> None:
        pass

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        return {"answered": [PART] * len(batch["part"])}


def ray_parts(folder: Path) -> dict[str, Any]:
    """Milliseconds of the driver for each part on Ray: from two numbers of parts, so that its start drops out."""
    from edgedl.deploy.many import cluster

    items, seen = list_inputs([write_list(folder)]), []
    for parts in RAY_PARTS:
        some = items[: parts * PART]
        results = Results(folder / f"ray-{parts}", Run("0" * 64, "fp32", {}, "", len(some), PART))
        begin, clock = time.process_time(), time.perf_counter()
        with mock.patch.object(cluster, "_Actor", Nothing):
            cluster.answer_on_ray(some, results, Setting("", ""), cluster.LOCAL, 2, lambda _: None)
        seen.append((time.process_time() - begin, time.perf_counter() - clock))
    few, many = seen
    more = RAY_PARTS[1] - RAY_PARTS[0]
    return {
        "parts": RAY_PARTS[1],
        "driver_ms": round(1e3 * (many[0] - few[0]) / more, 2),
        "clock_ms": round(1e3 * (many[1] - few[1]) / more, 2),
    }


def draw(held: dict[str, Any]) -> None:
    """How much faster many workers are, after Amdahl: what does not divide is the start and the driver's own work."""
    from edgedl.figures.style import GREY, SERIES, new_figure, save_figure

    figure = new_figure(7.0, 4.6)
    axes = figure.subplots()
    numbers = np.geomspace(1, 128, 100)
    axes.plot(numbers, numbers, color=GREY, linestyle=":", label="nothing serial")
    for colour, size, files in zip(SERIES, (9, 5, 0), (*FILES, 1_000_000), strict=False):
        serial = serial_share(held, files)
        label = f"{files:,} files: serial share {100 * serial:.2g} %"
        axes.plot(numbers, 1 / (serial + (1 - serial) / numbers), color=colour, label=label)
        times = {row["workers"]: busiest(row) for row in held["workers"]["rows"] if row["files"] == files}
        axes.plot(
            list(times),
            [times[1] / one for one in times.values()],
            color=colour,
            marker="o",
            markersize=size,
            linestyle="none",
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(ticks := [1, 2, 4, 8, 16, 32, 64, 128], labels=map(str, ticks))
    axes.set_yticks(ticks, labels=map(str, ticks))
    axes.set_xlabel("workers")
    axes.set_ylabel("times faster than one worker")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, title="dots: measured, lines: Amdahl's law")
    save_figure(figure, PICTURE)


def busiest(row: dict[str, Any]) -> float:
    """Seconds of a run in which nobody waits: the driver's processor time, and a worker's share of theirs."""
    return float(row["driver_s"] + row["workers_s"] / row["workers"])


def serial_share(held: dict[str, Any], files: int) -> float:
    """The share of one worker's time that more workers do not divide: the driver, and the start of a worker."""
    rows = {(row["files"], row["workers"]): row for row in held["workers"]["rows"]}
    few, many = (rows[number, 1] for number in FILES)
    each = (many["workers_s"] - few["workers_s"]) / (FILES[1] - FILES[0])
    start = many["driver_s"] + many["workers_s"] - FILES[1] * each
    listing = held["driver"]["name_us"] / 1e6 + held["driver"]["part_count_ms"] / 1e3 / PART
    serial = start + files * listing
    return float(serial / (serial + files * each))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument(
        "--only", nargs="+", choices=("driver", "stages", "workers", "ray"), default=["driver", "stages", "workers"]
    )
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name} and {PICTURE.name}")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    held = json.loads(RESULT.read_text()) if args.write and RESULT.exists() else {}
    measured: dict[str, Callable[[Path], dict[str, Any]]] = {
        "driver": driver,  # first, while the process is small
        "stages": lambda folder: stages(args.bundle, folder),
        "workers": lambda folder: workers(args.bundle, folder),
        "ray": ray_parts,
    }
    for name, measure in measured.items():
        if name in args.only:
            with tempfile.TemporaryDirectory() as folder:
                held[name] = measure(Path(folder))
    held["machine"] = describe_machine()
    print(json.dumps(held, indent=1))
    if args.write:
        RESULT.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
        if {"driver", "workers"} <= held.keys():
            draw(held)
    return 0


if __name__ == "__main__":
    sys.exit(main())
