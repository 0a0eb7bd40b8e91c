"""The README: its length, and its figures, which are those of benchmarks/results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import edgedl

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("\n## Measured\n")[2].partition("\n## ")[0]
ROWS = dict(line.strip("| ").split(" | ")[:2] for line in SECTION.splitlines() if line.startswith("| "))
INTRODUCTION = SECTION.partition("\n|")[0]


def result(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    return document


def ratios(large: bool) -> str:
    photos = [photo for photo in result("age_photo")["photos"] if (photo["megapixels"] > 2) is large]
    found = [[f"{kind(photo[key] for photo in photos):.1f}" for kind in (min, max)] for key in ("ratio", "ratio_int8")]
    return f"{' to '.join(found[0])} times less processor time, {' to '.join(found[1])} with int8"


def streams() -> str:
    found = [row["overhead_us"] for row in result("recurrent_export")["streaming"]]
    return f"{min(found):.1f} to {max(found):.1f} µs more"


def over_http(figure: str, clients: int) -> tuple[float, float]:
    """Ours with a thread a run, the default on two cores, and the best of all peers with one thread or two."""
    figures = result("serving")["figures"]
    peers = [
        row[str(clients)][figure] for name, row in figures.items() if name.startswith(("fastapi", "litserve", "bento"))
    ]
    return figures["edgedl, 1 threads"][str(clients)][figure], min(peers)


def besides(kind: str) -> str:
    slowest = max(row["p99_ms"] for name, row in result("service_starve")["rows"].items() if name.endswith(kind))
    return f"{slowest:.0f} ms"


SOAK = result("service_soak")["rows"]
OURS, PEERS = over_http("processor_ms", 64)
TAILS = [over_http("p99_ms", clients) for clients in (8, 64)]
AGE, CLIP, MEMORY = result("age_photo"), result("caption_clip"), result("caption_memory")
RECURRENT, START = result("recurrent_export"), result("cold_start")
FIGURES = {
    "photo to ages, 3 photos of 2.5 megapixels": ("age_photo", ratios(large=True)),
    "photo to ages, 2 small photos": ("age_photo", ratios(large=False)),
    "the face network alone": (
        "age_photo",
        f"{AGE['network']['ratio']:.1f} times less processor time, ages within "
        f"{AGE['network']['age_difference_years']:.1e} years",
    ),
    "clip of 10 frames to captions, beam 3": ("caption_clip", f"{CLIP['clip']['ratio']:.1f} times faster"),
    "its search alone, 1 and 8 clips": (
        "caption_clip",
        f"{CLIP['decoding']['1']['ratio']:.1f} and {CLIP['decoding']['8']['ratio']:.1f} times faster",
    ),
    "memory: a ten-minute 1080p video, then 100 clips": (
        "caption_memory",
        f"{MEMORY['peak_mb']:.0f} and {MEMORY['resident_after_100_clips_mb']:.0f} MB",
    ),
    "448 combinations of recurrent layers": (
        "recurrent_export",
        f"all equal; median {RECURRENT['median ratio']:.1f}, slowest {RECURRENT['least ratio']:.1f} times faster",
    ),
    "a step of a stream": ("recurrent_export", streams()),
    "a face over HTTP, 64 clients": (
        "serving",
        f"{OURS:.2f} ms of processor time, {OURS / PEERS:.2f} of the best peer",
    ),
    "its 99th percentile, 8 and 64 clients": (
        "serving",
        " and ".join(f"{ours:.0f}" for ours, _ in TAILS)
        + " ms; best peer "
        + " and ".join(f"{p:.0f}" for _, p in TAILS),
    ),
    "`/livez` beside 500 slow heads, bodies, readers, 99th percentile": (
        "service_starve",
        ", ".join(besides(f"500 slow {kind}") for kind in ("heads", "bodies", "readers")),
    ),
    "half an hour of mixed requests": (
        "service_soak",
        f"{sum(SOAK['outcome'].values()):,}, all right; {SOAK['growth_mb']:+.1f} MB of memory",
    ),
    "a call of `Engine`": (
        "engine_overhead",
        f"{max(one['median_us'] for one in result('engine_overhead')['overhead'].values()):.1f} µs more",
    ),
    "a fresh process to its first answer": (
        "cold_start",
        f"{START['first_prediction']['processor_s']:.2f} s of processor time, {START['ratio']:.2f} times",
    ),
    "`edgedl --help`": ("cold_start", f"{START['help']['processor_s']:.2f} s of processor time"),
}


@pytest.mark.parametrize("what", FIGURES)
def test_the_figure_is_the_measured_one(what):
    assert ROWS[what] == FIGURES[what][1]


@pytest.mark.parametrize("what", FIGURES)
def test_the_machine_is_named(what):
    machine = result(FIGURES[what][0])["machine"]
    words = f"{INTRODUCTION} {next(line for line in SECTION.splitlines() if line.startswith(f'| {what} '))}"
    assert machine["processor"] in words, f"{what} was measured on {machine['processor']}; say so in its row"


def test_no_figure_comes_from_nowhere():
    assert ROWS.keys() - {"what"} == FIGURES.keys()


def test_what_the_rows_count():
    assert list(SOAK["outcome"]) == ["right"]
    assert sum(2 < photo["megapixels"] < 3 for photo in AGE["photos"]) == 3
    assert len(AGE["photos"]) == 5
    assert (RECURRENT["combinations"], RECURRENT["not equal, or other operators"]) == (448, [])


def test_the_wheel_has_the_version_of_this_tree():
    assert set(re.findall(r"edgedl-([\d.]+\w*)-py3", README)) == {edgedl.__version__}


def test_it_is_short():
    assert len(README.splitlines()) <= 220
