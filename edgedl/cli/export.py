"""``edgedl export``: a trained run, or anybody's ``nn.Module``, -> a bundle, through the parity gate."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedl.cli import arguments
from edgedl.cli.describe import description

if TYPE_CHECKING:
    from runtime.bundle import Bundle

FACTORY = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)")


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "export",
        run,
        "prove and write a bundle",
        "A factory is called without arguments and returns (module, options); the options are the keyword\n"
        "arguments of exporters.export.export: inputs, outputs and, where wished, name, task, cases, sizes,\n"
        "license and so on. The current folder is searched for its module. When the gate says no, the exit\n"
        "status is 1 and no bundle is left behind.",
    )
    parser.add_argument("source", metavar="RUN|package.module:factory", help="a trained run or a factory")
    parser.add_argument("-o", "--output", metavar="B", help="the bundle to write (default: the name, with .edge)")
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


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    options = {"name": args.name, "opset": args.opset, "untrained": args.untrained or None, "others": args.others}
    given = {key: value for key, value in options.items() if value is not None}
    bundle = export(args.source, args.output, given)
    args.out.text(description(bundle))
    args.out.document({"ok": True, "bundle": str(bundle.path), "manifest": bundle.manifest.to_json()})
    return 0


def export(source: str, output: str | None, options: Mapping[str, Any]) -> Bundle:
    """Exports a run by its task, or the module of a factory with the options that it returned."""
    from runtime.errors import InputError

    factory = FACTORY.fullmatch(source)
    if factory is None or Path(source).exists():
        return _export_run(Path(source), output, options)
    if "others" in options:
        raise InputError("--with puts the runs of captioners together; a factory gives one module")
    return _export_factory(factory["module"], factory["name"], output, options)


def _export_run(run_path: Path, output: str | None, options: Mapping[str, Any]) -> Bundle:
    from edgedl.tasks import task
    from edgedl.training.run import Run
    from runtime.errors import InputError

    name = Run.open(run_path).task
    if "others" in options and name != "caption":
        raise InputError(f"--with puts captioners together; {run_path} is a run of the task {name!r}")
    bundle: Bundle = task(name).export(run_path, Path(output or f"{options.get('name', name)}.edge"), **options)
    return bundle


def _export_factory(module_name: str, attribute: str, output: str | None, options: Mapping[str, Any]) -> Bundle:
    from exporters.export import export as export_module
    from runtime.errors import EdgedlError, InputError

    factory = _load_factory(module_name, attribute)
    try:
        made = factory()
    except EdgedlError:
        raise
    except Exception as error:
        raise _theirs(error, f"{module_name}:{attribute}") from error
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], Mapping)):
        raise InputError(
            f"{module_name}:{attribute} returned {type(made).__name__}, expected (module, options) with the "
            "keyword arguments of exporters.export.export as a dict"
        )
    module, declared = made
    merged = {"name": attribute.rpartition(".")[2], "task": "generic"} | dict(declared) | dict(options)
    for key in ("inputs", "outputs"):
        if key not in merged:
            raise InputError(f"{module_name}:{attribute} gives no {key}; its options hold {', '.join(declared) or '-'}")
    try:
        return export_module(module, Path(output or f"{merged['name']}.edge"), **merged)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise InputError(f"{module_name}:{attribute}: {error}") from error


def _theirs(error: Exception, place: str) -> Exception:
    """An error that is not edgedl's: the sentence says whose, and --traceback shows where."""
    from runtime.errors import InputError

    return InputError(f"{place} failed with {type(error).__name__}: {error} (--traceback shows where)")


def _load_factory(module_name: str, attribute: str) -> Any:
    from runtime.errors import EdgedlError, InputError

    # As `python -m` does, unless the user asked Python not to (PYTHONSAFEPATH).
    here = [] if sys.flags.safe_path else [""]
    sys.path[:0] = here
    try:
        found: Any = importlib.import_module(module_name)
    except EdgedlError:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            place = "installed" if sys.flags.safe_path else f"installed or in {Path.cwd()}"
            raise InputError(f"there is no module {error.name} {place}; expected package.module:factory") from error
        raise _theirs(error, f"importing {module_name}") from error
    finally:
        if here and sys.path[:1] == here:
            del sys.path[0]
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise InputError(f"{module_name} has no {attribute}; expected the name of a function in it")
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"{module_name}:{attribute} is {type(found).__name__}, expected a function")
    return found
