"""docs/growth.md and the workers of docs/learning-curve.md: their figures follow from what was measured and assumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgedl.deploy.many.results import PART

ROOT = Path(__file__).resolve().parents[1]
GROWTH, CURVE = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("growth.md", "learning-curve.md"))
HELD: dict[str, Any] = json.loads((ROOT / "benchmarks/results/growth.json").read_text(encoding="utf-8"))
KINDS, ROW, DRIVER = HELD["stages"]["kinds"], HELD["stages"]["row"], HELD["driver"]
RUNS = {(row["files"], row["workers"]): row for row in HELD["workers"]["rows"]}
FEW, MANY = sorted({files for files, _ in RUNS})


def table(page: str, heading: str) -> dict[str, list[str]]:
    """The rows of the first table below a heading, by their first cell."""
    lines = page.partition(f"\n## {heading}\n")[2].splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows: dict[str, list[str]] = {}
    for line in lines[begin + 2 :]:
        if not line.startswith("|"):
            break
        name, *cells = (cell.strip() for cell in line.strip().strip("|").split("|"))
        rows[name] = cells
    return rows


def cost(kind: str) -> float:
    """Seconds of processor time of a photo."""
    return (sum(KINDS[kind][f"{stage}_ms"] for stage in ("decode", "graph", "rest")) + ROW["write_ms"]) / 1e3


def measured() -> dict[str, list[str]]:
    kinds = [KINDS["small"], KINDS["photo"]]
    return {
        "pixels, millions": [f"{kind['megapixels']:.2f}" for kind in kinds],
        "faces": [f"{kind['faces']:.1f}" for kind in kinds],
        "bytes read": [f"{kind['bytes_in']:,}" for kind in kinds],
        "bytes of its row": 2 * [f"{ROW['bytes_out']:,}"],
        **{
            f"{name}, ms": [f"{kind[f'{key}_ms']:.2f}" for kind in kinds]
            for name, key in (("decode", "decode"), ("graphs", "graph"), ("the rest", "rest"))
        },
        "row, ms": 2 * [f"{ROW['write_ms']:.2f}"],
        "all, ms": [f"{1e3 * cost(kind):.2f}" for kind in ("small", "photo")],
    }


def dealt() -> dict[str, list[str]]:
    return {
        "memory of a name": [f"{DRIVER['name_bytes']} bytes"],
        "listing a name": [f"{DRIVER['name_us']:.1f} µs"],
        "counting a part of 256 at the end": [f"{DRIVER['part_count_ms']:.2f} ms"],
        "a part of 256 on Ray": [f"{HELD['ray']['driver_ms']:.1f} ms"],
    }


def assumed() -> dict[str, float]:
    return {name: float(cells[0].replace(",", "")) for name, cells in table(GROWTH, "Assumed").items()}


def carried() -> dict[str, list[str]]:
    given, rows = assumed(), {}
    network = given["network of a machine, Gbit/s"] * 1e9 / 8
    storage = given["storage, all machines together, GB/s"] * 1e9
    photos, machines, cores = given["photos"], given["machines"], given["cores of a machine"]
    serial = DRIVER["name_us"] / 1e6 + DRIVER["part_count_ms"] / 1e3 / PART
    for kind in ("small", "photo"):
        moved = KINDS[kind]["bytes_in"] + ROW["bytes_out"]
        limits = {
            "processors": machines * cores / cost(kind),
            "network": machines * network / moved,
            "storage": storage / moved,
            "one driver on Ray": PART / (HELD["ray"]["driver_ms"] / 1e3),
        }
        shared = min(limits["processors"], limits["network"], limits["storage"])
        column = {
            "one worker": 1 / cost(kind),
            "two workers": 2 / cost(kind),
            "processors of one machine": cores / cost(kind),
            **{
                f"{name} of all machines" if name in ("processors", "network") else name: v
                for name, v in limits.items()
            },
        }
        for name, value in column.items():
            rows.setdefault(f"{name}, photos/s", []).append(f"{float(f'{value:.3g}'):,.0f}")
        hours = {
            "one run": (photos / min(limits.values()) + photos * serial) / 3600,
            "as many runs as machines": (photos / shared + photos / machines * serial) / 3600,
        }
        for name, value in hours.items():
            rows.setdefault(f"{name}, hours", []).append(f"{value:.1f}")
    return rows


@pytest.mark.parametrize(
    ("heading", "expected"), [("Measured", measured), ("Carried", carried)], ids=["measured", "carried"]
)
def test_the_table_follows_from_the_measured_figures(heading, expected):
    assert table(GROWTH, heading) == expected()


def test_the_driver_is_the_measured_one():
    assert table(GROWTH, "The driver") == dealt()


def test_the_text_says_what_the_tables_say():
    given, text = assumed(), " ".join(GROWTH.split())
    gigabytes = given["photos"] * DRIVER["name_bytes"] / 1e9
    assert gigabytes > given["memory of the driver, GB"]
    assert f"{gigabytes:.0f} GB of memory" in text
    assert f"{gigabytes / given['machines']:.1f} GB" in text
    enough = given["storage, all machines together, GB/s"] * 1e9 / (KINDS["photo"]["bytes_in"] + ROW["bytes_out"])
    assert f"{-(-enough * cost('photo') // given['cores of a machine']):.0f} machines" in text
    slope = (RUNS[MANY, 1]["workers_s"] - RUNS[FEW, 1]["workers_s"]) / (MANY - FEW)
    assert f"{1e3 * slope:.1f} ms more for each file" in text
    assert f"{given['photos'] / PART / 1e6:.1f} million files" in text
    assert HELD["machine"]["processor"] in text


def busiest(files: int, workers: int) -> float:
    """Seconds of a run in which nobody waits for a processor: the driver's, and one worker's share of theirs."""
    return float(RUNS[files, workers]["driver_s"] + RUNS[files, workers]["workers_s"] / workers)


def serial(files: int) -> float:
    """The share of Amdahl's law, from the runs with one worker alone: what is left at no files, and names and parts."""
    each = (RUNS[MANY, 1]["workers_s"] - RUNS[FEW, 1]["workers_s"]) / (MANY - FEW)
    start = busiest(MANY, 1) - MANY * each
    fixed = start + files * (DRIVER["name_us"] / 1e6 + DRIVER["part_count_ms"] / 1e3 / PART)
    return fixed / (fixed + files * each)


def scaled() -> dict[str, list[str]]:
    rows = {}
    for files in (FEW, MANY, 1_000_000):
        share = serial(files)
        seen = [f"{busiest(files, 1) / busiest(files, 2):.2f}" if (files, 2) in RUNS else "–"]
        rows[f"{files:,}"] = [
            f"{100 * share:.2g} %",
            *seen,
            *(f"{1 / (share + (1 - share) / n):.3g}" for n in (2, 16, 128)),
        ]
    return rows


def test_time_against_workers_follows_from_the_measured_figures():
    assert table(CURVE, "Time against workers") == scaled()
