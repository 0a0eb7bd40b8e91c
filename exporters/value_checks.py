"""Checks of values that forward makes: ``assert torch.isfinite(x).all()``, ``if x.min() < 0: raise``.

What they look at has no number while a module is traced. Where the other way only raises, warns or prints, an answer
always comes from the one way, and that is the one that is traced.
"""

from __future__ import annotations

import ast
import functools
import itertools
import linecache
from pathlib import Path
from types import FrameType

import torch

from exporters.places import is_of_user

_SAYING = ("warn", "warn_once", "print", "debug", "info", "warning", "error", "critical", "log", "exception")


def passes(frame: FrameType | None) -> bool | None:
    """The truth value with which a check in the user's code passes, asked for by the code that runs now.

    Args:
        frame: The innermost frame.

    Returns:
        None where the user's line is no such check.
    """
    while frame is not None and not _holds_checks(frame.f_code.co_filename):
        frame = frame.f_back
    if frame is None:
        return None
    found = _checks(frame.f_code.co_filename).get(frame.f_lineno)
    if found is None:
        return None
    asked = frame.f_lasti // 2 - 1  # the instruction that gave what is asked
    line, _, column, _ = next(itertools.islice(frame.f_code.co_positions(), asked, None))
    return _truth(*found, (line or 0, column or 0))


def _holds_checks(file: str) -> bool:
    """Whether a file is the user's, or one of torch's layers and losses, which check their arguments."""
    return is_of_user(file) or file.startswith(str(Path(torch.nn.__file__).parent))


@functools.cache
def _checks(file: str) -> dict[int, tuple[ast.expr, bool]]:
    """For the lines of a file that hold a check: what is asked, and the truth value that lets forward go on."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return {}
    found: dict[int, tuple[ast.expr, bool]] = {}
    for node in ast.walk(tree):
        wanted = None
        if isinstance(node, ast.Assert):
            wanted = True
        elif isinstance(node, ast.If) and not node.orelse and all(map(_only_says, node.body)):
            wanted = False
        if wanted is not None:
            assert isinstance(node, ast.Assert | ast.If)  # noqa: S101 - for mypy
            for line in range(node.test.lineno, (node.test.end_lineno or node.test.lineno) + 1):
                found[line] = node.test, wanted
    return found


def _only_says(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Raise | ast.Pass):
        return True
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Call):
        return False
    function = statement.value.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in _SAYING


def _truth(test: ast.expr, wanted: bool, place: tuple[int, int]) -> bool:
    """The truth value of the part of a condition at a place with which the whole is, or goes on to be, as wanted."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _truth(test.operand, not wanted, place)
    if isinstance(test, ast.BoolOp):
        before = [part for part in test.values if (part.lineno, part.col_offset) <= place]
        return _truth((before or test.values)[-1], wanted, place)
    return wanted
