"""Faces in groups: when they are looked for, how candidates are shown again, and what is found of real small faces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.crowds import AGREED, POSSIBLE, Crowd, with_crowd
from runtime.detection import Finder, Looks
from runtime.errors import BundleError, InputError
from runtime.faces import Detection, Pixels, fitted, overlap, square
from runtime.media.pictures import read_image
from runtime.pipelines import load
from runtime.pipelines.age import AgePipeline, AgeSettings
from tests.runtime.test_age_pipeline import HOPPER, SETTINGS, detection

CROWD = Crowd(smallest=0.02, least=20, shown=14.4, below=0.1, doubt=0.6, sure=0.5)


@pytest.fixture(scope="module")
def pipeline(age_bundle) -> Iterator[AgePipeline]:
    with load(age_bundle, threads=1) as opened:
        assert isinstance(opened, AgePipeline)
        yield opened


@pytest.fixture(scope="module")
def portrait(portrait_path) -> np.ndarray:
    return read_image(portrait_path)


def group(portrait: Pixels, width: int, height: int, columns: int, rows: int, side: int) -> tuple[Pixels, np.ndarray]:
    """Heads of one woman in rows on a plain wall, each a little different, and the boxes of their faces."""
    chance = np.random.default_rng(8)
    photo = np.full((height, width, 3), (110, 125, 140), np.uint8)
    x1, y1, x2, y2 = HOPPER
    zoom = side / (x2 - x1)
    boxes = []
    for number in range(columns * rows):
        turn = cv2.getRotationMatrix2D(((x1 + x2) / 2, (y1 + y2) / 2), float(chance.uniform(-6, 6)), zoom)
        turn[:, 2] += side - np.array([(x1 + x2) / 2, (y1 + y2) / 2])
        head = cv2.warpAffine(portrait, turn, (2 * side, 2 * side), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
        if chance.random() < 0.5:
            head = head[:, ::-1]
        head = (head * chance.uniform(0.8, 1.15)).clip(0, 255).astype(np.uint8)
        x = (2 * (number % columns) + 1) * width // (2 * columns) - side
        y = (2 * (number // columns) + 1) * height // (2 * rows) - side
        photo[y : y + 2 * side, x : x + 2 * side] = head
        boxes.append([x + side / 2, y + side / 2, x + 3 * side / 2, y + 3 * side / 2])
    return photo, np.array(boxes)


def found_of(faces: list[Detection], boxes: np.ndarray) -> int:
    if not faces:
        return 0
    places = np.stack([face.box for face in faces])
    return sum(float(overlap(box, places).max()) > 0.3 for box in boxes)


@pytest.mark.parametrize(
    ("width", "height", "columns", "rows", "side"), [(3000, 2000, 8, 4, 130), (4000, 3000, 9, 7, 84)], ids=str
)
def test_a_group_is_found(pipeline, portrait, width, height, columns, rows, side):
    photo, boxes = group(portrait, width, height, columns, rows, side)
    assert found_of(pipeline.find(photo, 0), boxes) < len(boxes) / 10, "otherwise the first look suffices"
    faces = pipeline.find(photo)
    assert found_of(faces, boxes) >= 0.95 * len(boxes)
    assert len(faces) <= len(boxes) + 1, "each once, and nothing else"
    assert (np.diff([face.score for face in faces]) <= 0).all(), "the surest first"
    answers = pipeline.predict(photo)["faces"]
    assert [answer["score"] for answer in answers] == [round(face.score, 4) for face in faces]
    assert np.median([answer["age"] for answer in answers]) > 45, "she was 77; of so few pixels her age is a guess"


def test_a_group_behind_somebody_is_found_on_request(pipeline, portrait):
    """The first look finds the one in front and is content; 0.03 of 1,600 pixels are 48."""
    photo, boxes = group(portrait, 1600, 1200, 6, 2, 50)
    photo[650:, 500 : 500 + 512] = portrait[:550]
    boxes = boxes[:6]
    few, all_of_them = pipeline.find(photo), pipeline.find(photo, 0.03)
    assert found_of(few, boxes) < 6
    assert found_of(all_of_them, boxes) == 6
    (front,) = [face for face in all_of_them if face.side > 150]
    assert any(np.array_equal(front.box, face.box) for face in few), "what was found stays what it was"


@pytest.mark.parametrize("smallest", [-0.5, 0.001, 1.5, float("nan"), float("inf")])
def test_a_share_out_of_range_is_refused(pipeline, portrait, smallest):
    with pytest.raises(InputError, match=r"0\.01 to 1"):
        pipeline.predict(portrait, smallest=smallest)


@pytest.mark.parametrize(("smallest", "seen"), [(0.02, 640), (0.01, 1280)])
def test_a_photo_is_read_as_finely_as_the_smallest_face_needs(pipeline, monkeypatch, smallest, seen):
    """A JPEG of this size is read at a quarter first, which is 900 pixels."""
    photo = cv2.imencode(".jpg", np.full((2700, 3600, 3), 90, np.uint8))[1].tobytes()
    looks, detect = {}, pipeline.finder.detect
    monkeypatch.setattr(
        pipeline.finder,
        "detect",
        lambda image, model="faces": (looks.setdefault(model, image.shape), detect(image, model))[1],
    )
    pipeline.predict(photo, smallest=smallest)
    assert looks["crowd"] == (seen * 3 // 4, seen, 3)


def test_an_older_bundle_cannot_be_asked_for_small_faces(pipeline, portrait):
    older = Finder({"faces": pipeline.engines["faces"]}, Looks(look_again=2.5, frame=0.5))
    assert len(older.find(portrait)) == len(older.find(portrait, 0)) == 1
    with pytest.raises(InputError, match="no model 'crowd'"):
        older.find(portrait, 0.02)


@given(st.integers(1, 50_000), st.sampled_from([-1.0, 0.0, 0.01, 0.02, 0.3, 1.0]))
def test_what_the_crowd_costs_is_bounded(side, smallest):
    """The picture is no larger than the photo, nor than the smallest share that can be asked for makes it."""
    share = CROWD.share(smallest, side)
    if smallest == 0:
        assert share is None
        return
    assert share is not None
    wanted = CROWD.side(share, side)
    assert wanted <= side
    assert wanted <= CROWD.shown / (CROWD.smallest if smallest < 0 else 0.01)
    # A face of that share has as many pixels as it needs, or those that the photo has.
    assert share * wanted == pytest.approx(min(CROWD.shown, share * side), abs=share)


@pytest.mark.parametrize(
    ("faces", "missed"),
    [
        ([], True),
        ([detection(0, 0, 99, 99)], True),
        ([detection(0, 0, 101, 101)], False),
        ([detection(0, 0, 101, 101, 0.59)], True),
        ([detection(0, 0, 300, 300), detection(500, 0, 540, 40), detection(600, 0, 640, 40)], True),
        ([detection(0, 0, 300, 300), detection(500, 0, 640, 140), detection(600, 0, 640, 40)], False),
    ],
    ids=["none", "small", "large", "doubtful", "most are small", "most are large"],
)
def test_when_the_first_look_is_not_enough(faces, missed):
    assert CROWD.missed(faces, 1000) is missed


class Told:
    """A detector that gives what it is told for each picture in turn, and keeps the pictures."""

    def __init__(self, *answers: list[Detection] | Callable[[Pixels], list[Detection]]) -> None:
        self.answers = list(answers)
        self.pictures: list[Pixels] = []

    def __call__(self, picture: Pixels) -> list[Detection]:
        self.pictures.append(picture)
        answer = self.answers.pop(0)
        return answer(picture) if callable(answer) else answer


def at(x: float, y: float, side: float, score: float = 0.9) -> Detection:
    return detection(x - side / 2, y - side / 2, x + side / 2, y + side / 2, score)


def test_a_sheet_shows_each_candidate_in_the_middle_of_its_square():
    """Five candidates, a bright dot in the middle of each: side by side, and each answer comes back to its own."""
    photo = np.zeros((900, 1200, 3), np.uint8)
    faces = [at(200 + 190 * n, 120 + 150 * n, 20 + 6 * n, 0.1) for n in range(5)]
    for face in faces:
        x, y = face.middle.astype(int)
        photo[y - 3 : y + 3, x - 3 : x + 3] = 255

    def bright(sheet: Pixels) -> list[Detection]:
        count, _, _, middles = cv2.connectedComponentsWithStats((sheet[..., 0] > 100).astype(np.uint8))
        assert count == 6
        return [at(x + 0.5, y + 0.5, 32, 0.8) for x, y in middles[1:]]

    told = Told(bright)
    shown = CROWD.sheet.shown(told, photo, faces)
    (sheet,) = told.pictures
    assert sheet.shape == (64, 320, 3)
    for face, seen in zip(faces, shown, strict=True):
        assert seen is not None
        assert seen.score == 0.8
        np.testing.assert_allclose(seen.middle, face.middle, atol=0.06 * face.side)
        assert seen.side == pytest.approx(face.side, rel=0.06)


def test_what_a_square_shows_elsewhere_is_another_face():
    faces = [at(100, 100, 20), at(300, 100, 20)]
    told = Told([at(32, 32, 32, 0.8), at(64 + 10, 50, 20, 0.9)])
    first, second = CROWD.sheet.shown(told, np.zeros((200, 400, 3), np.uint8), faces)
    assert first is not None
    assert second is None
    assert CROWD.sheet.shown(Told(), np.zeros((9, 9, 3), np.uint8), []) == []


def crowd_of(*answers: Any, found: list[Detection] | None = None) -> tuple[list[Detection], Told]:
    """A photo of 1000 x 600 whose crowd's picture is half as large."""
    told = Told(*answers)
    image = np.zeros((600, 1000, 3), np.uint8)
    return with_crowd(told, image, image[:300, :500], found or [], CROWD), told


def test_a_candidate_is_confirmed_on_the_sheet():
    seen, told = crowd_of([at(100, 50, 16, 0.1)], [at(33, 31, 32, 0.8)])
    (face,) = seen
    assert len(told.pictures) == 2
    assert face.score == 0.8, "how sure the detector was when it saw the face enlarged"
    np.testing.assert_allclose(face.middle, [201, 99], atol=0.6)  # the square has a pixel more than 64
    assert face.side == pytest.approx(32, abs=0.6)


@pytest.mark.parametrize(
    ("on_the_sheet", "alone", "looks", "count"),
    [
        (CROWD.certain, None, 2, 1),
        (CROWD.certain - 0.01, 0.5, 3, 1),
        (POSSIBLE, 0.5, 3, 1),
        (POSSIBLE, 0.49, 3, 0),
        (POSSIBLE - 0.01, None, 2, 0),
    ],
    ids=["certain", "doubted, then confirmed", "hardly possible", "not confirmed", "not possible"],
)
def test_what_is_doubted_is_shown_once_more_alone(on_the_sheet, alone, looks, count):
    answers = [[at(100, 50, 16, 0.1)], [at(32, 32, 32, on_the_sheet)]]
    if alone is not None:
        answers.append([at(28, 28, 37, alone)])
    seen, told = crowd_of(*answers)
    assert len(told.pictures) == looks
    assert len(seen) == count


def test_a_candidate_shown_large_is_believed_by_its_own_score():
    """32 pixels are half of a sheet's square of 64."""
    side = CROWD.sheet.side / CROWD.sheet.share
    seen, told = crowd_of([at(100, 50, side, 0.5), at(300, 50, side, 0.49)])
    assert len(told.pictures) == 1
    (face,) = seen
    np.testing.assert_array_equal(face.middle, [200, 100])


def test_faces_of_the_first_look_are_kept_and_not_found_twice():
    first = at(200, 100, 40, 0.7)
    candidates = [at(101, 50, 19, 0.3), at(300, 50, 16, 0.2), at(302, 50, 16, 0.1)]
    seen, told = crowd_of(candidates, [at(32, 32, 32, 0.75), at(96, 32, 32, 0.9)], found=[first])
    assert len(told.pictures) == 2
    assert len(seen) == 2
    assert seen[1] is first
    assert seen[0].score == 0.9, "of two of one face the surer one"


def test_after_a_sheet_without_a_face_there_is_none():
    candidates = [at(10 + 9 * n, 50, 8, 0.5 - n / 1000) for n in range(3 * CROWD.sheet.most)]
    seen, told = crowd_of(candidates, [at(32, 32, 32, 0.9)], [])
    assert len(seen) == 1
    assert len(told.pictures) == 3
    side = CROWD.sheet.side * CROWD.sheet.across
    assert max(max(picture.shape) for picture in told.pictures[1:]) == side


@given(st.integers(0, 3), st.integers(1, 40), st.integers(1, 40), st.data())
def test_turning_back_is_the_inverse_of_a_turn(quarters, height, width, data):
    """A rectangle of one colour is turned with its picture; its box in the turned picture is turned back."""
    x1, y1 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x2, y2 = data.draw(st.integers(x1 + 1, width)), data.draw(st.integers(y1 + 1, height))
    image = np.zeros((height, width, 3), np.uint8)
    image[y1:y2, x1:x2] = 255
    image[y1, x1] = (255, 0, 0)
    turned = np.rot90(image, quarters)
    rows, columns = np.nonzero(turned[..., 0])
    box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32)
    ((row, column),) = np.argwhere(turned[..., 0].astype(int) - turned[..., 1] > 0)
    face = Detection(box, 0.5, np.array([[column + 0.5, row + 0.5]], np.float32))
    back = face.turned_back(quarters, (height, width))
    assert back.box.tolist() == [x1, y1, x2, y2]
    assert back.keypoints.tolist() == [[x1 + 0.5, y1 + 0.5]]


@pytest.mark.parametrize("quarters", range(4))
def test_a_photo_on_its_side_is_turned_on_request(pipeline, portrait, quarters):
    (expected,) = pipeline.faces(portrait)
    lying = np.ascontiguousarray(np.rot90(portrait, quarters))
    answer = pipeline.predict(lying, turned=True)
    assert answer["turned"] == 90 * quarters
    (face,) = answer["faces"]
    upright = Detection(np.array(expected.box, np.float32), 0, expected.keypoints)
    back = Detection(np.array(face["box"], np.float32), 0, np.array(face["keypoints"], np.float32))
    undone = back.turned_back(quarters, portrait.shape[:2])
    np.testing.assert_allclose(undone.box, upright.box, atol=2)
    np.testing.assert_allclose(undone.keypoints, upright.keypoints, atol=2)
    assert abs(face["age"] - expected.age) < 1.5
    assert "turned" not in pipeline.predict(lying)


def test_nothing_to_see_is_not_turned(pipeline):
    answer = pipeline.predict(np.zeros((60, 90, 3), np.uint8), turned=True)
    assert (answer["faces"], answer["turned"]) == ([], 0)


def test_the_setting_of_a_bundle_is_read():
    given = {"smallest": 0.02, "least": 20, "shown": 14.4, "below": 0.1, "doubt": 0.6, "sure": 0.5}
    assert AgeSettings.from_json(SETTINGS | {"crowd": given}).looks.crowd == CROWD
    assert AgeSettings.from_json(SETTINGS).looks.crowd is None
    sheet = {"square": 1.5, "square_side": 48, "across": 6, "certain": 0.6}
    crowd = AgeSettings.from_json(SETTINGS | {"crowd": given | sheet}).looks.crowd
    assert crowd is not None
    assert (crowd.sheet.share, crowd.sheet.side, crowd.sheet.most, crowd.certain) == (1.5, 48, 36, 0.6)


def test_a_bundle_that_does_not_lay_out_its_sheets_is_looked_at_as_before():
    """Up to 25 squares of twice the candidate, 64 pixels wide."""
    assert (CROWD.square, CROWD.square_side, CROWD.across, CROWD.certain) == (2.0, 64, 5, 0.7)
    candidates = [at(15 + 15 * n, 50, 10, 0.5 - n / 1000) for n in range(30)]
    _, told = crowd_of(candidates, [at(32, 32, 32, 0.9)], [])
    assert [picture.shape[:2] for picture in told.pictures[1:]] == [(320, 320), (64, 320)]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"smallest": 0.02},
        {"smallest": "small"},
        3,
        [1],
        {"tiles": 4},
        asdict(CROWD) | {"across": 5.5},
        asdict(CROWD) | {"square_side": 0},
    ],
    ids=str,
)
def test_a_setting_that_does_not_fit_is_refused(given):
    with pytest.raises(BundleError, match="cannot be read"):
        AgeSettings.from_json(SETTINGS | {"crowd": given})


@pytest.mark.parametrize(("shape", "side"), [((30, 20), 64), ((300, 200), 64), ((64, 64), 64), ((1, 500), 64)], ids=str)
def test_an_image_is_brought_to_a_side(shape, side):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    brought = fitted(image, side)
    assert max(brought.shape[:2]) == side
    assert brought.shape[0] / brought.shape[1] == pytest.approx(shape[0] / shape[1], rel=0.05) or min(shape) == 1
    assert abs(float(brought.mean()) - float(image.mean())) < 12


def test_a_square_is_cut_around_the_middle():
    photo = np.arange(100 * 80 * 3, dtype=np.uint32).astype(np.uint8).reshape(100, 80, 3)
    cutout, left, top = square(photo, detection(20, 30, 40, 60), 2.0)
    assert (left, top) == (0, 15)
    assert cutout.shape == (61, 61, 3)
    np.testing.assert_array_equal(cutout, photo[15:76, 0:61])


def test_agreement_is_stricter_than_identity():
    """A square that shows a face beside the candidate does not confirm it."""
    assert AGREED > 0.3
