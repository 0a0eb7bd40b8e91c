"""The beam: what its readings must be by construction, and tables of one's own."""

from __future__ import annotations

import numpy as np
import pytest

from edgedl.tasks.sgd.data import CORRELATION, TRUE_WEIGHTS, embedded_readings, read_readings
from runtime.errors import InputError

HEAD = "gauge_1_mV,gauge_2_mV,force_N\n"


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("seed", [0, 7])
def test_the_curvature_is_the_one_that_was_asked_for(split, seed):
    x = embedded_readings(split, seed).gauges.astype(np.float64)
    np.testing.assert_allclose(x.T @ x / len(x), [[1, CORRELATION], [CORRELATION, 1]], atol=1e-6)


def test_many_readings_tell_the_true_weights():
    parts = [embedded_readings("val", seed) for seed in range(40)]
    x = np.concatenate([part.gauges for part in parts]).astype(np.float64)
    y = np.concatenate([part.force for part in parts]).astype(np.float64)
    found, *_ = np.linalg.lstsq(x, y, rcond=None)
    # Standard error along the valley: 0.5 / sqrt(0.08 * 10240) = 0.017.
    np.testing.assert_allclose(found, TRUE_WEIGHTS, atol=0.05)


def test_parts_differ_and_all_is_both():
    train, val, both = (embedded_readings(split) for split in ("train", "val", "all"))
    assert (len(train), len(val), len(both)) == (64, 256, 320)
    assert not np.isin(train.force, val.force).any()
    np.testing.assert_array_equal(both.force, np.concatenate([train.force, val.force]))


def test_a_table_is_read_and_divided(tmp_path):
    table = tmp_path / "beam.csv"
    table.write_text(HEAD + "".join(f"{i},{i / 2},{3 * i}\n" for i in range(20)))
    everything = read_readings(table)
    assert everything.gauges.tolist() == [[i, i / 2] for i in range(20)]
    assert everything.force.tolist() == [3 * i for i in range(20)]
    train, val = read_readings(table, "train"), read_readings(table, "val")
    assert (len(train), len(val)) == (18, 2)
    assert sorted([*train.force, *val.force]) == sorted(everything.force)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "the column gauge_1_mV is missing"),
        (HEAD + "1,2,x\n", "line 2: force_N is 'x', expected a number"),
        (HEAD + "1,2\n", "line 2: force_N is None, expected a number"),
        (HEAD + "1,inf,2\n", "gauge_2_mV is inf, expected a finite number"),
        (HEAD + "1,2,3\n", "has 1 rows; 4 to"),
        ("", "the column gauge_1_mV is missing"),
        (b"\xff\xfe\x00", "is not a table of text"),
    ],
    ids=["columns", "a word", "a short row", "infinite", "too few", "empty", "no text"],
)
def test_a_wrong_table_is_refused(tmp_path, text, message):
    table = tmp_path / "beam.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        read_readings(table)


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_readings(tmp_path / "none.csv")
    with pytest.raises(InputError, match="there is no split 'test'"):
        embedded_readings("test")
