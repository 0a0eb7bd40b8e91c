"""``edgedl bench``: how fast a bundle is on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from edgedl.cli import arguments
from edgedl.cli.output import number, table


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "bench",
        run,
        "measure latency, throughput and memory on this machine",
        "For figures that can be compared, let nothing else run meanwhile.",
    )
    arguments.bundle(parser)
    arguments.device(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from runtime.bench import bench

    result: dict[str, Any] = bench(args.bundle, device=args.device, threads=args.threads)
    rows = [
        (model, variant, int(batch), figures["p50_ms"], figures["p95_ms"], figures["per_s"])
        for model, variants in result["models"].items()
        for variant, batches in variants.items()
        for batch, figures in batches.items()
    ]
    args.out.text(table(("model", "variant", "batch", "p50 ms", "p95 ms", "per second"), rows))
    args.out.text(
        f"\n{number(result['cold_start_s'])} s from starting Python to the first answer, "
        f"{number(result['rss_mb'])} MB at its peak, {number(result['overhead'])} µs a call over the bare session\n"
        f"{result['threads']} threads on {result['device']} ({result['provider']})"
    )
    args.out.document({"ok": True, **result})
    return 0
