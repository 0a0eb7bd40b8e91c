"""What the C library does with memory that was freed."""

from __future__ import annotations

import platform

import pytest

from runtime.child import run_python

AGAIN = """
import resource
import numpy as np
from runtime.memory import large_blocks_kept

def faults():
    np.ones(16 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
with large_blocks_kept():
    meanwhile = faults()
print(before, meanwhile, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this is about glibc")
def test_blocks_of_128_megabytes_are_kept_for_a_while() -> None:
    """Memory that comes from the system anew is cleared page by page; a page may have 2 MB."""
    before, meanwhile, afterwards = map(int, run_python(AGAIN).stdout.split())
    assert meanwhile < 32 <= min(before, afterwards)
