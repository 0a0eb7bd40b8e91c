"""Why a training of several processes ended: the reason of the one that failed, and not what the others saw of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from runtime import errors
from runtime.errors import CheckFailedError, EdgedlError

LOST = ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL")
"""What the error of a process says which can no longer reach another one."""


@contextmanager
def reasons() -> Iterator[None]:
    """Turns what torch says of processes into what ended them.

    Raises:
        EdgedlError: The one that a process which was started for this training raised.
        CheckFailedError: A process has died.
    """
    try:
        yield
    except ProcessRaisedException as error:
        told = raised_in_child(str(error))
        if told is None:
            raise
        raise told from None
    except ProcessExitedException as error:
        raise CheckFailedError(
            f"process {error.error_index} of this training has died ({error}); go on with --resume"
        ) from error
    except RuntimeError as error:
        lost = isinstance(error, torch.distributed.DistError) or any(word in str(error) for word in LOST)
        if not lost or not torch.distributed.is_initialized():
            raise
        raise CheckFailedError(
            "another process of this training has died; its own message, or the launcher's, says why"
        ) from error


def raised_in_child(traceback: str) -> EdgedlError | None:
    """The error at the end of a traceback, where it is one of edgedl's."""
    for line in reversed(traceback.strip().splitlines()):
        name, _, message = line.partition(": ")
        module, _, name = name.rpartition(".")
        if module == errors.__name__:
            kind = getattr(errors, name)
            error: EdgedlError = kind.__new__(kind)
            error.args = (message,)
            return error
    return None
