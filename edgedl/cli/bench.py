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
        (variant, int(batch), figures["p50_ms"], figures["p95_ms"], figures["per_s"])
        for variant, batches in result["variants"].items()
        for batch, figures in batches.items()
    ]
    args.out.text(table(("variant", "batch", "p50 ms", "p95 ms", "per second"), rows))
    for key, value in result.items():
        if isinstance(value, int | float | str) and key != "ok":
            args.out.text(f"{key}: {number(value)}")
    args.out.document({"ok": True, **result})
    return 0
