"""What the command line says on standard error while it works: logs and warnings, a line each."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

OWN_LOGGERS = ("edgedl", "exporters", "runtime", "service")


@contextlib.contextmanager
def console(*, verbose: bool = False) -> Iterator[None]:
    """Sends the four packages' logs and all warnings to standard error, and puts everything back afterwards."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("edgedl: %(message)s"))
    loggers = [logging.getLogger(name) for name in OWN_LOGGERS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    show = warnings.showwarning

    def in_one_line(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any
    ) -> None:
        place = f" ({category.__name__}, {filename}:{lineno})" if verbose else ""
        handler.stream.write(f"edgedl: warning: {message}{place}\n")

    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG if verbose else logging.INFO)
        logger.propagate = False
    warnings.showwarning = in_one_line
    try:
        yield
    finally:
        warnings.showwarning = show
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
