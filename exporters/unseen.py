"""Answers the module as in an ordinary call where it asks whether it is being compiled or exported.

What forward answers while nobody traces it is the reference. A branch on ``torch.compiler.is_exporting()`` that answers
otherwise would put something else into the graph.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_OURS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
"""What is to know: torch and the exporter."""
_PASSING_ON = ("is_compiling", "is_exporting")
"""Functions of torch that ask another one of this name."""

_asked: list[str] = []


@contextmanager
def unseen() -> Iterator[list[str]]:
    """While it lasts, code that is not torch's own is told that nobody compiles or exports it.

    The code of torch's functions is exchanged, because people import them by name.

    Yields:
        The places that have asked.
    """
    _asked.clear()
    own = [(function, function.__code__) for function in (torch.compiler.is_compiling, torch.compiler.is_exporting)]
    try:
        torch.compiler.is_compiling.__code__ = _is_compiling.__code__
        torch.compiler.is_exporting.__code__ = _is_exporting.__code__
        yield _asked
    finally:
        for function, code in own:
            function.__code__ = code


def answer(true: bool) -> bool:
    """What a function of `torch.compiler` that was called by the caller of this one's caller is to say."""
    frame = sys._getframe(2)
    while frame.f_code.co_name in _PASSING_ON and frame.f_back is not None:
        frame = frame.f_back
    if not true or frame.f_code.co_filename.startswith(_OURS):
        return true
    _asked.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
    return False


def _is_compiling() -> bool:
    from exporters.unseen import answer

    return answer(_is_compiling_flag)  # type: ignore[name-defined]  # noqa: F821 - it runs among torch.compiler's names


def _is_exporting() -> bool:
    from exporters.unseen import answer

    return answer(_is_exporting_flag)  # type: ignore[name-defined]  # noqa: F821 - see above
