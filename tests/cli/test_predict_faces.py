"""``edgedl predict`` and how faces are looked for: --smallest and --turned, with bundles that have them and others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime.media.pictures import read_image, write_png
from tests.digits import write_digits_bundle
from tests.frozen_bundles import unpack


@pytest.fixture
def turned_portrait(portrait_path: Path, tmp_path: Path) -> Path:
    path = tmp_path / "turned.png"
    write_png(path, np.ascontiguousarray(np.rot90(read_image(portrait_path))))
    return path


def test_a_photo_on_its_side_is_answered_on_request(edgedl, age_bundle, turned_portrait):
    plain = edgedl("predict", age_bundle, turned_portrait, "--json").document["results"][0]
    assert "turned" not in plain
    answer = edgedl("predict", age_bundle, turned_portrait, "--turned", "--json").document["results"][0]
    assert answer["turned"] == 90
    (face,) = answer["faces"]
    assert abs(face["age"] - 77) < 10
    right_eye, left_eye, _, mouth = face["keypoints"][:4]
    assert right_eye[1] > left_eye[1], "to the left the person's right is below"
    assert right_eye[0] < mouth[0]


def test_a_share_is_taken_and_one_out_of_range_is_a_sentence(edgedl, age_bundle, portrait_path):
    result = edgedl("predict", age_bundle, portrait_path, "--smallest", "0.02", "--json")
    assert result.status == 0
    assert len(result.document["results"][0]["faces"]) == 1
    result = edgedl("predict", age_bundle, portrait_path, "--smallest", "80")
    assert result.status == 2
    assert "smallest is 80; expected the share of the photo's longest side" in result.err
    assert "Traceback" not in result.err


def test_a_bundle_of_another_task_finds_no_faces(edgedl, portrait_path, tmp_path):
    bundle = write_digits_bundle(tmp_path / "digits.edge").path
    for options, named in ((["--turned"], "--turned"), (["--smallest", "0", "--turned"], "--smallest, --turned")):
        result = edgedl("predict", bundle, portrait_path, *options)
        assert result.status == 2
        assert f"{named}: a bundle of the task 'digits' finds no faces" in result.err


def test_an_older_bundle_says_what_it_lacks(edgedl, portrait_path, tmp_path):
    bundle = unpack("age", tmp_path).path
    assert edgedl("predict", bundle, portrait_path, "--smallest", "0").status == 0
    result = edgedl("predict", bundle, portrait_path, "--smallest", "0.02")
    assert result.status == 2
    assert "has no model 'crowd'" in result.err
