"""What an exception means to the person at the command line: one sentence and an exit status."""

from __future__ import annotations

import os
from dataclasses import dataclass

from edgedl._parts import shadowed

USAGE = 2
BUG = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 130
BROKEN_PIPE = 141  # 128 + SIGPIPE, as a shell reports it

PARTS = ("edgedl", "exporters", "runtime", "service")

# The import name of an optional dependency -> its package on the index, the extra that brings it.
EXTRAS = {
    "av": ("av", "video"),
    "cv2": ("opencv-python-headless", "media"),
    "flask": ("flask", "serve"),
    "gunicorn": ("gunicorn", "serve"),
    "lightning": ("lightning", "train"),
    "matplotlib": ("matplotlib", "train"),
    "nacl": ("PyNaCl", "sign"),
    "onnx": ("onnx", "train"),
    "onnxruntime": ("onnxruntime", "cpu"),
    "onnxscript": ("onnxscript", "train"),
    "orjson": ("orjson", "serve"),
    "platformdirs": ("platformdirs", "train"),
    "prometheus_client": ("prometheus-client", "serve"),
    "tflite": ("tflite", "train"),
    "torch": ("torch", "train"),
}


class UsageError(Exception):
    """The command line itself does not parse."""

    def __init__(self, message: str, usage: str = "") -> None:
        super().__init__(message)
        self.usage = usage


@dataclass(frozen=True, slots=True)
class Failure:
    """What is told about an exception."""

    exit_status: int
    message: str
    usage: str = ""


def explain(error: BaseException) -> Failure:
    """Finds the sentence and the exit status for an exception that ended a command."""
    if isinstance(error, UsageError):
        return Failure(USAGE, str(error), error.usage)
    if isinstance(error, KeyboardInterrupt):
        return Failure(INTERRUPTED, "interrupted")
    if isinstance(error, ImportError):
        told = _explain_import(error)
        if told is not None:
            return told
    try:
        from runtime.errors import EdgedlError
    except ImportError as shadow:
        return _explain_import(shadow) or _bug(error)
    if isinstance(error, EdgedlError):
        return Failure(error.exit_status, str(error))
    if isinstance(error, OSError) and error.strerror:
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return Failure(USAGE, f"{place}{error.strerror}")
    return _bug(error)


def _bug(error: BaseException) -> Failure:
    first_line = (str(error).strip().splitlines() or [""])[0]
    found = f"{type(error).__name__}: {first_line}".rstrip(": ")
    return Failure(BUG, f"{found}. This is a bug in edgedl: please report it with the output of --traceback")


def _explain_import(error: ImportError) -> Failure | None:
    package = (error.name or "").partition(".")[0]
    if package in PARTS:
        foreign = shadowed()
        if foreign:
            return Failure(USAGE, "; ".join(foreign))
    if isinstance(error, ModuleNotFoundError) and package in EXTRAS:
        from runtime.errors import MissingExtraError

        return Failure(USAGE, str(MissingExtraError(*EXTRAS[package])))
    return None
