"""``edgedl export``: a trained run, or anybody's ``nn.Module``, -> a bundle, through the parity gate."""

from __future__ import annotations

import argparse
import atexit
import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedl.cli import arguments, brought, releasing
from edgedl.cli.describe import description

if TYPE_CHECKING:
    from runtime.bundle import Bundle


_FOR_NETWORKS = {
    "outputs": "--output", "opset": "--opset", "others": "--with",
    "reproduce": "--reproduce", "one_graph": "--one-graph",
}  # fmt: skip


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "export",
        run,
        "prove and write a bundle",
        "A factory is called without arguments and returns a module, or (module, options) with the keyword\n"
        "arguments of edgedl.export: inputs, outputs and, where wished, name, task, cases, sizes, license and\n"
        "so on. A class is made without arguments. The current folder is searched for the Python module. When\n"
        "the gate says no, the exit status is 1 and no bundle is left behind.",
    )
    parser.add_argument(
        "source",
        metavar="RUN|module:name|model.onnx",
        help="a trained run; a factory, a class or a module of yours, package.module:name or file.py:name; or a graph",
    )
    parser.add_argument("-o", dest="output", metavar="B", help="the bundle to write (default: the name, with .edge)")
    parser.add_argument("--name", help="the name of the bundle (default: the task's or the factory's)")
    parser.add_argument(
        "--with",
        dest="others",
        metavar="RUN",
        action="append",
        help="of captions: a run with the same encoder and words; both choose each word together. May be repeated",
    )
    parser.add_argument("--opset", type=arguments.positive, metavar="N", help="the ONNX opset (default: 18)")
    parser.add_argument(
        "--untrained", action="store_true", help="allow a network whose parity gate is vacuous because it never learned"
    )
    parser.add_argument(
        "--reproduce",
        metavar="FOLDER",
        help="where the gate fails: write the first node that differs there, with its inputs and its answer",
    )
    parser.add_argument(
        "--for",
        dest="runtimes",
        metavar="RELEASE",
        action="append",
        help="a release that must load the graph, e.g. onnxruntime==1.17; may be repeated",
    )
    arguments.add_one_graph(parser)
    brought.add_arguments(parser)
    releasing.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from runtime.memory import large_blocks_kept

    options = {"name": args.name, "opset": args.opset, "untrained": args.untrained or None, "others": args.others}
    options |= {"reproduce": args.reproduce, "runtimes": args.runtimes, "one_graph": args.one_graph or None}
    given = {key: value for key, value in options.items() if value is not None} | brought.declared(args)
    with _little_garbage(), large_blocks_kept():
        bundle = releasing.demanded(args, export(args.source, args.output, given))
    args.out.text(description(bundle))
    args.out.document({"ok": True, "bundle": str(bundle.path), "manifest": bundle.manifest.to_json()})
    return 0


@contextmanager
def _little_garbage() -> Iterator[None]:
    """Lets Python look for garbage seldom, and not at all when the process ends.

    torch and onnxscript make a million objects that live as long as the process. To walk through them again and again
    took a third of the time of a small export.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 50)
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def export(source: str, output: str | None, options: Mapping[str, Any]) -> Bundle:
    """Exports a run by its task, or the module of a factory with the options that it returned."""
    from runtime.errors import InputError

    if Path(source).suffix == ".onnx":
        return _export_graph(Path(source), output, options)
    if brought.NAME.fullmatch(source) is None or Path(source).exists():
        return _export_run(Path(source), output, options)
    if "others" in options:
        raise InputError("--with puts the runs of captioners together; a factory gives one module")
    if "one_graph" in options:
        raise InputError("--one-graph composes the networks of an age run; a factory gives one module")
    from exporters.export import export as export_module

    module, merged = brought.bring(source, options)
    return export_module(module, Path(output or f"{merged['name']}.edge"), **merged)


def _export_graph(path: Path, output: str | None, options: Mapping[str, Any]) -> Bundle:
    from exporters import declaration
    from exporters.assemble import assemble
    from exporters.existing import declared_by, export_graph, read_graph
    from runtime.errors import InputError

    left = dict(options)
    for key, option in _FOR_NETWORKS.items():
        if key in left:
            raise InputError(f"{option} is for networks; {path} is a graph already")
    name = left.pop("name", path.stem)
    known, outputs = declared_by(read_graph(path))
    known = tuple({tensor.name: tensor for tensor in (*known, *left.get("inputs", ()))}.values())
    if "state" in left:
        left["state"] = [declaration.parse_state(text, known) for text in left["state"]]
    if "cases" in left:
        read = [declaration.read_sample(sample, known, outputs) for sample in left["cases"]]
        left["cases"] = [case for case, _ in read]
        left["answers"] = {case.name: answers for case, answers in read if answers}
    model, reference = export_graph(path, **left)
    about = {"source": path.name, "reference": reference}
    target = Path(output or f"{name}.edge")
    return assemble(target, name=name, task="generic", models={name: model}, provenance=about)


def _export_run(run_path: Path, output: str | None, options: Mapping[str, Any]) -> Bundle:
    from edgedl.tasks import task
    from edgedl.training.run import Run
    from runtime.errors import InputError

    name = Run.open(run_path).task
    if "others" in options and name != "caption":
        raise InputError(f"--with puts captioners together; {run_path} is a run of the task {name!r}")
    bundle: Bundle = task(name).export(run_path, Path(output or f"{options.get('name', name)}.edge"), **options)
    return bundle
