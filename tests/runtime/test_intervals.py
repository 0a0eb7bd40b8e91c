"""The range of an age in a bundle: what the manifest may say, and what comes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from runtime.errors import BundleError
from runtime.fields import BundleWarning
from runtime.intervals import UNCALIBRATED, Coverage, Interval, Measured, parse_interval
from runtime.pipelines.age import AgeSettings

MEASURED = Measured("faces", "val", Coverage(0.81, 12.5, 1234), {"0-9": Coverage(0.79, 3.0, 200)})
INTERVAL = Interval(0.8, (0.0, 10.0, 50.0), (-1.0, 7.0, 32.0), (4.0, 14.0, 54.0), MEASURED)


@pytest.mark.parametrize(
    ("age", "low", "high"),
    [(7, 3, 10), (14, 10, 21.2), (3, 0, 5), (32, 28, 50), (54, 50, 54), (-2, -2, 0), (60, 50, 60)],
    ids=["a corner", "another", "the youngest", "the oldest", "itself", "below the table", "above the table"],
)
def test_the_table_is_read_the_other_way(age, low, high):
    """By hand. Of those aged 10 most are taken for 7 to 14. The age itself lies inside in any case."""
    assert [float(end) for end in INTERVAL.ends(age)] == pytest.approx([low, high])


def test_the_ends_of_many_ages():
    low, high = INTERVAL.ends(np.array([[7.0, 14.0]], np.float32))
    np.testing.assert_allclose(low, [[3, 10]])
    np.testing.assert_allclose(high, [[10, 21.2]])


def test_the_manifest_keeps_it():
    assert parse_interval(INTERVAL.to_json()) == INTERVAL


def calibrated_on(faces: int, level: float = 0.8) -> Interval:
    return replace(INTERVAL, level=level, measured=replace(MEASURED, all=Coverage(level, 12.5, faces)))


@pytest.mark.parametrize(
    ("level", "faces", "share"),
    [(0.8, 1234, "80 ± 1 %"), (0.8, 100, "80 ± 4 %"), (0.8, 3416, "80 ± 0.7 %"), (0.55, 400, "55 ± 2 %"),
     (0.965, 10_000, "96.5 ± 0.2 %"), (0.8, 1, "80 ± 40 %"), (0.8, 0, "80 ± 40 %")],
)  # fmt: skip
def test_it_is_told_in_words_with_what_is_left_to_chance(level, faces, share):
    """By hand: √(p(1 − p)/n). The last two are of a manifest that nobody can have calibrated."""
    told = calibrated_on(faces, level).told()
    assert told.startswith(f"The range holds {share} of the true ages")
    assert f"({faces:,} of faces)" in told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": 1.5}, "level is 1.5, expected a share between 0 and 1"),
        ({"level": "0.8"}, "level is a text"),
        ({"least": [0.0, 4.0]}, "differ in their length"),
        ({"years": [0.0, 10.0, 10.0]}, "years does not ascend"),
        ({"most": [4.0, 16.0, 15.0]}, "most does not ascend"),
        ({"least": [0.0, 15.0, 32.0]}, "least is above most"),
        ({"least": [1.0]}, "expected a list of at least two ages"),
        ({"least": [0.0, None, 1.0]}, r"least\[1\] is null"),
        ({"measured": {"dataset": "faces"}}, "split"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(BundleError, match=message):
        parse_interval(INTERVAL.to_json() | change)


def test_a_key_of_a_newer_version_warns():
    with pytest.warns(BundleWarning, match="unknown keys in pipeline.interval: 'shape'"):
        parse_interval(INTERVAL.to_json() | {"shape": 2})


def test_the_settings_of_a_pipeline_say_what_its_ranges_promise():
    settings = {"years": [0, 1], "crop": {"kind": "margin", "margin": 0.4}}
    without = AgeSettings.from_json(settings)
    assert without.interval is None
    assert without.interval_json() == {"calibrated": False, "level": None, "note": UNCALIBRATED}
    calibrated = AgeSettings.from_json(settings | {"interval": INTERVAL.to_json()})
    assert calibrated.interval == INTERVAL
    assert calibrated.interval_json() == {"calibrated": True, "level": 0.8, "note": INTERVAL.told()}
    with pytest.raises(BundleError, match=r"pipeline\.interval is a text"):
        AgeSettings.from_json(settings | {"interval": "80 %"})
