"""What a captioner can be: the decoders that there are."""

from __future__ import annotations

DECODERS = ("spatial", "attention", "mean-pool", "mean-pool-paper")
