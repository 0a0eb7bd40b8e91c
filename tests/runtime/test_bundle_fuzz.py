"""Random damage to a packed bundle: a BundleError or the correct bytes, nothing else."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.bundle import Bundle, golden_from_npz, pack, write_bundle
from runtime.errors import BundleError
from runtime.fields import BundleWarning
from runtime.manifest import Manifest
from runtime.npy import dump_npy, load_npy


@pytest.fixture
def packed(linear_parts: tuple[Manifest, dict[str, bytes]], tmp_path: Path) -> tuple[bytes, Manifest, dict[str, bytes]]:
    bundle = pack(write_bundle(tmp_path / "f.edge", *linear_parts), tmp_path / "p.edge")
    return bundle.path.read_bytes(), *linear_parts


CUT = st.none() | st.tuples(st.integers(0, 10**6), st.integers(1, 50))
DAMAGE = st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), max_size=6)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flips=DAMAGE,
    keep=st.none() | st.integers(0, 10**6),
    cut=CUT,
)
def test_flips_and_truncations(packed, tmp_path: Path, flips, keep, cut) -> None:
    content, manifest, files = packed
    data = bytearray(content)
    for place, mask in flips:
        data[place % len(data)] ^= mask
    if cut is not None:
        start = cut[0] % len(data)
        del data[start : start + cut[1]]
    if keep is not None:
        del data[keep % (len(data) + 1) :]
    file = tmp_path / "damaged.edge"
    file.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BundleWarning)
        try:
            bundle = Bundle.open(file)
        except BundleError:
            return
    # What is accepted is what was written: every file whole, and the manifest protected by its CRC.
    assert bundle.manifest == manifest
    assert {name: bundle.read(name) for name in files} == files


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=DAMAGE, keep=st.none() | st.integers(0, 10**6))
def test_damaged_golden_cases(packed, flips, keep) -> None:
    data = bytearray(packed[2]["linear.golden.npz"])
    for place, mask in flips:
        data[place % len(data)] ^= mask
    if keep is not None:
        del data[keep % (len(data) + 1) :]
    try:
        golden_from_npz(bytes(data))
    except BundleError:
        return


@settings(max_examples=300, deadline=None)
@given(flips=DAMAGE, tail=st.binary(max_size=20))
def test_damaged_npy(flips, tail: bytes) -> None:
    import numpy as np

    data = bytearray(dump_npy(np.arange(12, dtype=np.float32).reshape(3, 4)) + tail)
    for place, mask in flips:
        data[place % 140 % len(data)] ^= mask
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's own words about odd headers
        try:
            array = load_npy(bytes(data))
        except ValueError:
            return
    assert array.nbytes <= len(data)
