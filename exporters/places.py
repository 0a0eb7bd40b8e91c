"""The user's line behind an operator or an error: file, number and text."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable
from pathlib import Path

import torch

_EXPORTER, _TORCH, _PYTHON = (str(Path(str(file)).parent) for file in (__file__, torch.__file__, traceback.__file__))


_FRAME = re.compile(r'File "([^"]+)", line (\d+), in [^\n]*\n\s*([^\n]*)')


def current_line() -> str | None:
    """The line of the user's code that is being run; None where there is only torch's and the exporter's."""
    return _innermost(traceback.extract_stack()[:-1])


def line_of_error(error: BaseException | None) -> str | None:
    """The innermost line of the user's code that an error went through; None where it met none."""
    while error is not None:
        found = _innermost(traceback.extract_tb(error.__traceback__))
        if found is not None:
            return found
        error = error.__cause__ or error.__context__
    return None


def is_of_user(file: str) -> bool:
    """Whether a file is neither torch's, nor the exporter's, nor Python's own."""
    own = file.startswith(_PYTHON) and "site-packages" not in file
    return not (own or file.startswith((_EXPORTER, _TORCH, "<")))


def _innermost(frames: Iterable[traceback.FrameSummary]) -> str | None:
    for frame in reversed(list(frames)):
        file = frame.filename
        if file.startswith(f"{_EXPORTER}/source.py"):
            return None  # what lies further out called the exporter
        if not is_of_user(file):
            continue
        return f"{Path(file).name}:{frame.lineno}" + (f": {frame.line}" if frame.line else "")
    return None


def line_in(stack: str) -> str | None:
    """The innermost line of the user's code in a stack trace as torch keeps it with its nodes."""
    frames = [traceback.FrameSummary(file, int(at), "", line=code) for file, at, code in _FRAME.findall(stack)]
    return _innermost(frames)
