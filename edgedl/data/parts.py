"""Three parts of a data set that share no sample: to calibrate, to choose, to judge."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from exporters.quantize.judge import Part
from runtime.errors import InputError

CALIBRATE, CHOOSE = 200, 1000
JUDGE = 2000
"""Samples of each part, at most."""


def three_parts(keys: Sequence[str], held_out: Sequence[bool], judged: int = JUDGE) -> dict[Part, list[int]]:
    """Deals samples out, decided by the SHA-256 of their keys: neither the order of files nor chance has a say.

    What training has not seen judges. Where nothing is held out, or all is, the samples that come first calibrate, the
    next choose, and the rest judges. A small set is dealt out in the proportion 2 : 3 : 5.

    Args:
        keys: one for each sample, e.g. its name; those of two samples differ.
        held_out: whether a sample was held out from training.
        judged: most samples of the part that judges.

    Returns:
        Numbers of samples for "calibrate", "choose" and "judge".

    Raises:
        InputError: a part would be empty.
    """
    order = sorted(
        range(len(keys)), key=lambda i: hashlib.sha256(f"parts {keys[i]}".encode(errors="surrogatepass")).digest()
    )
    apart = [i for i in order if held_out[i]]
    seen = [i for i in order if not held_out[i]]
    parts: dict[Part, list[int]]
    if len(seen) >= 2 and apart:
        first = min(CALIBRATE, len(seen) * 2 // 5 or 1)
        parts = {"calibrate": seen[:first], "choose": seen[first : first + CHOOSE], "judge": apart[:judged]}
    else:
        first = min(CALIBRATE, len(order) // 5)
        second = first + min(CHOOSE, len(order) * 3 // 10)
        parts = {"calibrate": order[:first], "choose": order[first:second], "judge": order[second : second + judged]}
    empty = [name for name, rows in parts.items() if not rows]
    if empty:
        raise InputError(
            f"{len(keys)} samples are too few: calibration, choice and judgement need parts of their own, and "
            f"{', '.join(empty)} would have none; give at least 10"
        )
    return parts
