"""What a user brings to ``edgedl export``: a module by its name, and what is declared of it."""

from __future__ import annotations

import argparse
import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

# mine.py:factory is a file as it was typed; package.module:factory is a module of Python's.
NAME = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*|[^:]+\.py):(?P<name>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The declarations, which win over those of a factory."""
    group = parser.add_argument_group("your own module", "declarations; they win over those of a factory")
    group.add_argument(
        "--input", metavar="DECLARATION", action="append", help="e.g. 'x: float32[B, T=1..512, 24] in 0..1'"
    )
    group.add_argument(
        "--output", metavar="DECLARATION", action="append", dest="outputs", help="e.g. 'scores: float32[B, 10] argmax'"
    )
    group.add_argument("--state", metavar="IN=OUT", action="append", help="a carried state, e.g. h0=hn")
    group.add_argument(
        "--sample", metavar="NPZ", action="append", help="real inputs, an array for each; may be repeated"
    )
    group.add_argument("--size", metavar="T=N,N,…", action="append", help="sizes to sweep a dimension over")


def declared(args: argparse.Namespace) -> dict[str, Any]:
    """What the command line declares, as keyword arguments of `exporters.export.export`.

    Raises:
        InputError: a declaration has another form.
    """
    if not any((args.input, args.outputs, args.state, args.sample, args.size)):
        return {}
    from exporters import declaration

    found: dict[str, Any] = {}
    dimensions: dict[str, Any] = {}
    if args.input:
        parsed = [declaration.parse_input(text) for text in args.input]
        found["inputs"] = [tensor for tensor, _ in parsed]
        dimensions |= {name: size for _, sizes in parsed for name, size in sizes.items()}
    if args.outputs:
        results = [declaration.parse_output(text) for text in args.outputs]
        found["outputs"] = [tensor for tensor, _ in results]
        dimensions |= {name: size for _, sizes in results for name, size in sizes.items()}
    if dimensions:
        found["dimensions"] = dimensions
    if args.size:
        found["sizes"] = declaration.parse_sizes(args.size)
    if args.state:
        found["state"] = args.state
    if args.sample:
        found["cases"] = args.sample
    return found


def bring(source: str, options: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """The module that a name stands for, and the options of its export.

    Args:
        source: ``package.module:NAME`` or ``file.py:NAME`` of a factory, a class or an instance.
        options: Of the command line, which win.

    Raises:
        InputError: there is no such thing, it fails, or an option is unknown or missing.
    """
    from exporters import declaration
    from exporters.export import export, export_model
    from runtime.errors import InputError

    module, theirs = made(source)
    merged = {"name": source.rpartition(":")[2].rpartition(".")[2], "task": "generic"} | theirs | dict(options)
    for key, form in (("inputs", "--input"), ("outputs", "--output")):
        if not merged.get(key):
            raise InputError(
                f"{source} gives no {key}; declare them with {form} or in the options of a factory, which hold "
                f"{', '.join(theirs) or 'nothing'}"
            )
    known = {*inspect.signature(export).parameters, *inspect.signature(export_model).parameters}
    known |= {"version", "license", "description", "pipeline", "files", "metrics", "provenance"}
    known -= {"module", "path", "about"}
    for key in merged:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise InputError(f"{source}: there is no option {key!r}" + (f"; did you mean {near[0]}?" if near else ""))
    if "state" in options:
        merged["state"] = [declaration.parse_state(text, merged["inputs"]) for text in options["state"]]
    if "cases" in options:
        merged["cases"] = [declaration.read_sample(path, merged["inputs"])[0] for path in options["cases"]]
    return module, merged


def made(source: str) -> tuple[nn.Module, dict[str, Any]]:
    """The module that a name stands for, and the options that its factory gives.

    Raises:
        InputError: there is no such thing, or it fails.
    """
    from torch import nn

    from runtime.errors import EdgedlError, InputError

    found = _found(source)
    if isinstance(found, nn.Module):
        return found.eval(), {}
    if not callable(found):
        raise InputError(f"{source} is {type(found).__name__}, expected a factory, a class of nn.Module or a module")
    try:
        made = found()
    except EdgedlError:
        raise
    except Exception as error:
        needs = (
            " A class is made without arguments; write a factory that gives them." if isinstance(found, type) else ""
        )
        raise _theirs(error, source, needs) from error
    if isinstance(made, nn.Module):
        return (made.eval() if isinstance(found, type) else made), {}
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module) and isinstance(made[1], Mapping):
        return made[0], dict(made[1])
    raise InputError(
        f"{source} returned {type(made).__name__}, expected an nn.Module or (module, options) with the keyword "
        "arguments of edgedl.export as a dict"
    )


def _theirs(error: Exception, place: str, more: str = "") -> Exception:
    """An error that is not edgedl's: the sentence says whose, and --traceback shows where."""
    from runtime.errors import InputError

    return InputError(f"{place} failed with {type(error).__name__}: {error} (--traceback shows where).{more}")


def _found(source: str) -> Any:
    from runtime.errors import EdgedlError, InputError

    match = NAME.fullmatch(source)
    if match is None:
        raise InputError(f"{source} is no run, and no package.module:factory")
    module_name, attribute = match["module"], match["name"]
    here = [] if sys.flags.safe_path else [""]
    if module_name.endswith(".py"):
        file = Path(module_name)
        if not file.is_file():
            raise InputError(f"{module_name}: there is no such file")
        here, module_name = [str(file.parent.resolve())], file.stem
    # As `python -m` does, unless the user asked Python not to (PYTHONSAFEPATH).
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
            near = difflib.get_close_matches(part, dir(found), n=1)
            raise InputError(f"{module_name} has no {attribute}" + (f"; did you mean {near[0]}?" if near else ""))
        found = getattr(found, part)
    return found
