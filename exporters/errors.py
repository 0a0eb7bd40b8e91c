"""What can go wrong between a torch module and a proven bundle, one exception per stage.

::

    CheckFailedError
    └── ExportError            no bundle was written
        ├── GuardError         a condition before or after the conversion does not hold
        ├── ParityError        the graph ran and its answers differ from torch in float64
        └── VacuousGateError   no tolerance exists that float32 passes and the weakest mutant fails
"""

from __future__ import annotations

from runtime.errors import CheckFailedError


class ExportError(CheckFailedError):
    """The module was not exported; nothing was left behind."""


class GuardError(ExportError):
    """A guard refused the module, its examples or the graph that came out."""


class TooFewSizesError(GuardError):
    """A named dimension has one size in all cases."""


class ParityError(ExportError):
    """The graph's answers differ from the float64 reference by more than the tolerance."""


class VacuousGateError(ExportError):
    """The tolerance would have to lie above what a broken network shows; usually the network is untrained."""
