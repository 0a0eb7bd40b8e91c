"""``edgedl bench``: how fast a bundle is on this machine, which options make it faster, and against what else."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedl.cli import arguments, brought
from edgedl.cli.output import number, table

if TYPE_CHECKING:
    from runtime.engine import Engine
    from runtime.feeds import Feed
    from runtime.tuning import Trial
    from runtime.turns import Ratio
    from runtime.versus import Answers, Other


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "bench",
        run,
        "measure latency, throughput and memory on this machine",
        "For figures that can be compared, let nothing else run meanwhile. With --tune or --against the ways are\n"
        "timed in turns, and each ratio has its quartiles beside it.",
    )
    arguments.bundle(parser)
    arguments.device(parser)
    parser.add_argument(
        "--model", metavar="NAME", help="with --against: which model (default: what the bundle is about)"
    )
    parser.add_argument("--variant", metavar="V", help="with --against: which form of it (default: its first)")
    only = parser.add_mutually_exclusive_group()
    only.add_argument(
        "--tune",
        action="store_true",
        help="try variants, threads and settings of the session, and print the options that are the fastest here",
    )
    only.add_argument(
        "--against",
        metavar="OTHER",
        help="another bundle, an ONNX file, or a module of PyTorch (package.module:name or file.py:name) with the same "
        "inputs",
    )
    parser.add_argument(
        "--seconds", type=arguments.seconds, default=1.0, metavar="S", help="of each measurement (default: 1.0)"
    )
    parser.add_argument("-o", "--output", metavar="PNG", help="with --tune or --against: draw the ratios there")


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from edgedl.cli.failures import UsageError

    if args.output and not (args.tune or args.against):
        raise UsageError("-o draws ratios; give --tune or --against as well")
    if (args.model or args.variant) and not args.against:
        raise UsageError("--model and --variant say what --against compares; bench alone measures all of them")
    if args.output:
        import edgedl.figures.ratios  # noqa: F401 - where the extra is missing it is said before minutes are measured
    if args.tune:
        return _tune(args)
    return _against(args) if args.against else _measure(args)


def _measure(args: argparse.Namespace) -> int:
    from runtime.bench import bench

    result: dict[str, Any] = bench(args.bundle, device=args.device, threads=args.threads, seconds=args.seconds)
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


def _tune(args: argparse.Namespace) -> int:
    from runtime.machine import describe_machine
    from runtime.tuning import tune

    tuned = tune(args.bundle, device=args.device, threads=args.threads, seconds=args.seconds)
    args.out.text(
        table(
            ("device", "threads", "variant", "p50 ms", "cpu ms", "of the best before", ""),
            [_row(trial) for trial in tuned.trials],
        )
    )
    if tuned.best == tuned.default:
        args.out.text("\nthe defaults are the fastest here")
    else:
        args.out.text(f"\nthe fastest here: {tuned.best}\n{tuned.ratio} of the time that the defaults take")
    if args.output:
        _draw(
            "time as a share of the best way before it",
            [(str(trial.way), trial.ratio) for trial in tuned.trials if trial.ratio is not None],
            args.output,
        )
    args.out.document({"ok": True, **tuned.to_json(), "machine": describe_machine()})
    return 0


def _row(trial: Trial) -> tuple[Any, ...]:
    verdict = trial.note or ("taken" if trial.taken else "")
    share = "" if trial.ratio is None else str(trial.ratio)
    return (trial.way.device, trial.way.threads, trial.way.variant, trial.p50_ms, trial.cpu_ms, share, verdict)


def _against(args: argparse.Namespace) -> int:
    from runtime.bundle import Bundle
    from runtime.machine import describe_machine
    from runtime.versus import opened, versus

    bundle = Bundle.open(args.bundle)
    with (
        opened(bundle, device=args.device, threads=args.threads, model=args.model, variant=args.variant) as (
            ours,
            inputs,
        ),
        _other(args, ours, inputs) as other,
    ):
        compared = versus(ours, inputs, other, args.seconds)
        name, threads = ours.name, ours.threads
    args.out.text(
        table(
            ("batch", "p50 ms", "other p50 ms", "times as fast", "cpu ms", "other cpu ms", "times less", "apart"),
            [
                (one.rows, one.ours.p50_ms, one.theirs.p50_ms, str(one.wall), one.ours.cpu_ms, one.theirs.cpu_ms,
                 str(one.cpu), one.difference)
                for one in compared
            ],
        )
    )  # fmt: skip
    args.out.text(f"\nmodel {name} of {args.bundle} against {args.against}, {threads} threads each")
    if args.output:
        rows = [(f"batch {one.rows}, {kind}", ratio) for one in compared
                for kind, ratio in (("time", one.wall), ("processor time", one.cpu))]  # fmt: skip
        _draw(f"{args.against} takes so many times as long", rows, args.output)
    args.out.document(
        {
            "ok": True,
            "model": name,
            "against": args.against,
            "threads": threads,
            "batches": {str(one.rows): one.to_json() for one in compared},
            "machine": describe_machine(),
        }
    )
    return 0


@contextmanager
def _other(args: argparse.Namespace, ours: Engine, inputs: dict[int, Feed]) -> Iterator[Other]:
    from runtime.versus import other_graph

    if brought.NAME.fullmatch(args.against) is None or Path(args.against).exists():
        with other_graph(args.against, ours, args.device) as other:
            yield other
    else:
        yield _eager(args.against, ours, inputs)


def _eager(source: str, ours: Engine, inputs: dict[int, Feed]) -> Other:
    """A module of PyTorch, called as it is, with the same threads."""
    import torch

    from exporters.calling import bind, named_answers
    from exporters.spec import Input, Output
    from runtime.errors import InputError

    module = brought.made(source)[0].eval()
    torch.set_num_threads(ours.threads)
    declared = [Input(tensor.name, tensor.dtype, tensor.shape) for tensor in ours.spec.inputs]
    results = [Output(tensor.name, tensor.dtype, tensor.shape) for tensor in ours.spec.outputs]
    first = next(iter(inputs.values()))

    def tensors(feed: Feed) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(array) for name, array in feed.items()}

    def attempt(call: Any) -> str | None:
        try:
            args, kwargs = call.fill(tensors(first))
            with torch.inference_mode():
                module(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the user's own code may raise anything
            return f"{type(error).__name__}: {error}"
        return None

    call = bind(module, declared, attempt)
    problem = attempt(call)
    if problem is not None:
        raise InputError(f"{source} does not take the inputs of the bundle's model {ours.name}: {problem}")

    def run(feed: Feed) -> Answers:
        args, kwargs = call.fill(tensors(feed))
        with torch.inference_mode():
            answers = named_answers(module(*args, **kwargs), results)
        return {name: value.numpy() for name, value in answers.items()}

    return run


def _draw(title: str, rows: Sequence[tuple[str, Ratio]], path: str) -> None:
    from edgedl.figures.ratios import save_ratios

    save_ratios(title, rows, path)
