"""The objectives of an age network by name: what the command line offers before torch is loaded."""

from __future__ import annotations

from typing import Literal

AgeObjectiveName = Literal["cross-entropy", "dldl", "dldl-v2", "mean-variance"]
