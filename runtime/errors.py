"""The exception tree of edgedl. Each message says what was found, what was expected and what to do.

::

    EdgedlError                 anything a user can mend; the command line prints it without a traceback
    ├── BundleError             a bundle that is damaged, tampered with, too large or from a newer edgedl
    ├── InputError              an array, file or option that does not fit
    │   ├── MediaError          a photo or video that cannot be decoded
    │   └── TooLargeError       more bytes or pixels than the limit allows
    ├── DeviceError             a device asked for by name that cannot be had (TargetError: a target of a proof)
    ├── MissingExtraError       an optional dependency that is not installed; carries the exact pip line
    └── CheckFailedError        the check itself ran and said no (parity, golden answers, doctor)

Everything but ``CheckFailedError`` exits with status 2, ``CheckFailedError`` with 1.
"""

from __future__ import annotations


class EdgedlError(Exception):
    """Base of every error that a user can mend."""

    exit_status = 2


class BundleError(EdgedlError):
    """A bundle cannot be trusted or read."""


class InputError(EdgedlError):
    """An array, file or option does not fit what was declared."""


class MediaError(InputError):
    """A photo or video cannot be decoded."""


class TooLargeError(InputError):
    """An input holds more bytes or pixels than the limit allows."""


class DeviceError(EdgedlError):
    """A device was asked for by name and cannot be had; there is no silent fallback."""


class MissingExtraError(EdgedlError):
    """A package of an optional extra is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; it is part of an extra: pip install 'edgedl[{extra}]'")
        self.package = package
        self.extra = extra


class CheckFailedError(EdgedlError):
    """A check ran to its end and said no."""

    exit_status = 1
