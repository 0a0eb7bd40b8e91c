"""What one call of `runtime.Engine` costs more than the bare `session.run` of ONNX Runtime.

    python benchmarks/engine_overhead.py            prints the figures and the machine
    python benchmarks/engine_overhead.py --write    also writes benchmarks/results/engine_overhead.json

The graphs do next to nothing, so that the difference is not lost in their own time. Both ways are timed in turns and
their medians compared; the worst of five rounds is reported beside the median of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np

from runtime.bench import overhead_us
from runtime.devices import PROBE_GRAPH
from runtime.engine import Engine
from runtime.machine import describe_machine

LIMIT_US = 20.0
ROUNDS = 5
RESULT = Path(__file__).parent / "results" / "engine_overhead.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    arguments = parser.parse_args()
    engine = Engine(PROBE_GRAPH, threads=1)
    contiguous = np.zeros((1, 1, 4, 4), np.float32)
    feeds = {"one input": {"x": contiguous}, "one input, not contiguous": {"x": contiguous.transpose(0, 1, 3, 2)}}
    figures = {}
    for name, feed in feeds.items():
        rounds = [overhead_us(engine, feed) for _ in range(ROUNDS)]
        figures[name] = {"median_us": round(statistics.median(rounds), 2), "worst_us": round(max(rounds), 2)}
        print(f"{name:<28} {figures[name]['median_us']:6.2f} µs a call over session.run (worst {max(rounds):.2f})")
    ok = all(figure["worst_us"] <= LIMIT_US for figure in figures.values())
    result = {"ok": ok, "limit_us": LIMIT_US, "overhead": figures, "machine": describe_machine()}
    print(json.dumps(result["machine"], indent=1))
    if arguments.write:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
