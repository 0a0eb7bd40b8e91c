from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedl.data.portrait_canvas import Canvas, blob, bump, ellipse_distance, spread, wave
from edgedl.data.portrait_features import paint
from edgedl.data.portrait_traits import UNIFORMS, traits
from edgedl.data.samples import FaceDataset
from edgedl.data.synthetic_faces import SIZE, PaintedFaces, SyntheticFaces, face_boxes, generate, scene
from runtime.errors import InputError
from runtime.media.pictures import read_image


def same_person(ages: list[float], seed: int = 0, size: int = 48):
    """One person at several ages."""
    uniforms = np.random.default_rng(seed).random((1, UNIFORMS)).repeat(len(ages), 0)
    return traits(np.array(ages, np.float64), uniforms)


def test_faces_and_ages_have_their_declared_form() -> None:
    images, ages = generate(0, 40)
    assert (images.shape, images.dtype) == ((40, SIZE, SIZE, 3), np.uint8)
    assert (ages.shape, ages.dtype) == ((40,), np.float32)
    assert (ages == np.round(ages)).all()
    assert images.flags.c_contiguous
    assert images.std(axis=(1, 2, 3)).min() > 15  # no picture is empty


def test_the_bytes_are_the_same_everywhere() -> None:
    """Only exactly rounded operations are used, so the hash holds for every machine and numpy from 1.26 on.

    When the painting is changed on purpose, put the new value here and say in the change log that networks trained on
    the synthetic faces are not comparable with earlier ones.
    """
    images, ages = generate(0, 24)
    assert ages.tolist()[:8] == AGES
    assert hashlib.sha256(images.tobytes()).hexdigest() == BYTES


AGES = [64, 89, 8, 90, 89, 38, 41, 3]
BYTES = "5ee1296d36040de36517c907a68fe9b0f0768dfa3521327d868010ca20a92396"


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 50), st.integers(1, 40), st.sampled_from([16, 33, 64]))
def test_a_face_depends_on_seed_and_number_alone(seed: int, first: int, n: int, size: int) -> None:
    images, ages = generate(seed, n, size, first)
    alone, age = generate(seed, 1, size, first + n - 1)
    assert (images[-1] == alone[0]).all()
    assert ages[-1] == age[0]


def test_another_seed_gives_other_faces() -> None:
    assert (generate(0, 5)[0] != generate(1, 5)[0]).mean() > 0.9
    assert len({generate(s, 1, 16)[0].tobytes() for s in range(30)}) == 30


def test_ages_are_spread_evenly() -> None:
    ages = SyntheticFaces(0, 3000).ages
    assert (ages.min(), ages.max()) == (0, 100)
    counts = np.histogram(ages, bins=[0, 20, 40, 60, 80, 101])[0]
    assert (np.abs(counts - 600) < 5 * np.sqrt(600)).all()


@pytest.mark.parametrize(
    ("trait", "grows"),
    [
        ("eye_line", False), ("eye_height", False), ("nose_size", True), ("grey", True), ("folds", True),
        ("bags", True), ("forehead_lines", True), ("crows_feet", True), ("sagging", True), ("lip_thickness", False),
        ("receding", True),
    ],
)  # fmt: skip
def test_every_sign_of_age_goes_its_way(trait: str, grows: bool) -> None:
    for seed in range(20):
        values = getattr(same_person([0, 5, 12, 25, 45, 65, 85, 100], seed), trait)
        steps = np.diff(values) if grows else -np.diff(values)
        if trait in ("lip_thickness", "nose_size", "eye_height"):  # a grown face is larger or smaller before it ages
            steps = steps[3:]
        assert (steps >= -1e-6).all(), (trait, seed, values)


@pytest.mark.parametrize(("young", "old"), [(0, 8), (8, 20), (30, 50), (50, 70), (70, 95)])
def test_age_shows_in_the_pixels(young: int, old: int) -> None:
    """The same person in the same light and noise: only age makes a difference, the background has none."""
    changed = []
    for seed in range(6):
        people = same_person([young, old], seed)
        still = np.full((2, 48, 48, 3), 128, np.uint8)
        images = paint(people, 48, still).astype(int)
        changed.append(np.abs(images[0] - images[1]).mean())
    assert min(changed) > 1


def test_a_linear_reader_of_small_pictures_already_beats_the_median() -> None:
    """Ridge regression on 24×24 pictures: were age not in the picture, this would end at the median's error."""

    def features(images: np.ndarray) -> np.ndarray:
        small = images.reshape(len(images), 24, 2, 24, 2, 3).mean(axis=(2, 4)).reshape(len(images), -1) / 255 - 0.5
        return np.concatenate([small, np.ones((len(images), 1))], axis=1)

    images, ages = generate(0, 700, 48)
    x, y = features(images[:550]), ages[:550]
    kernel = x @ x.T
    weights = x.T @ np.linalg.solve(kernel + 20 * np.eye(len(x)), y - 50)
    error = np.abs(features(images[550:]) @ weights + 50 - ages[550:]).mean()
    median = np.abs(np.median(y) - ages[550:]).mean()
    assert median > 20
    assert error < 0.6 * median


def test_the_data_set_paints_what_generate_gives() -> None:
    faces = SyntheticFaces(5, 40, 32)
    assert (len(faces), faces.splits) == (40, ("train", "val"))
    train, val = faces.split("train"), faces.split("val")
    assert (len(train), len(val)) == (36, 4)
    images, ages = generate(5, 36, 32)
    assert isinstance(train, SyntheticFaces)
    assert (train.ages == ages).all()
    assert (train.image(20) == images[20]).all()
    bulk, bulk_ages = val.arrays()
    assert (bulk[2] == val.image(2)).all()
    assert (bulk_ages == val.ages).all()
    assert {sample.attributes["gender"] for sample in faces} == {"female", "male"}
    with pytest.raises(InputError, match="no split 'test'"):
        faces.split("test")


def test_validation_stays_when_the_set_grows() -> None:
    small, large = SyntheticFaces(0, 50).split("val"), SyntheticFaces(0, 500).split("val")
    assert [s.name for s in small] == [s.name for s in large][: len(small)]
    names = {s.name for s in SyntheticFaces(0, 500).split("train")}
    assert not names & {s.name for s in large}


def test_a_sample_reads_like_a_file() -> None:
    faces = SyntheticFaces(2, 20, 32)
    assert (read_image(faces[3].read()) == faces.image(3)).all()
    assert (FaceDataset.image(faces, 19) == faces.image(19)).all()
    assert PaintedFaces(2, 32).names() == ()


@pytest.mark.parametrize("faces", [1, 2, 3, 4])
def test_a_scene_says_where_its_faces_are(faces: int) -> None:
    image, boxes, ages = scene(7, faces, 320)
    assert (image.shape, image.dtype) == ((320, 320, 3), np.uint8)
    assert (boxes.shape, boxes.dtype, ages.shape) == ((faces, 4), np.float32, (faces,))
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= 320).all()
    assert (boxes[:, 2:] - boxes[:, :2] > 40).all()
    for i in range(faces):
        for j in range(i):
            apart = (boxes[i, :2] >= boxes[j, 2:]) | (boxes[j, :2] >= boxes[i, 2:])
            assert apart.any()
    again = scene(7, faces, 320)
    assert all((a == b).all() for a, b in zip(again, (image, boxes, ages), strict=True))


def test_the_box_holds_the_eyes_and_the_mouth() -> None:
    people = same_person([1, 30, 80])
    x1, y1, x2, y2 = face_boxes(people, 100).T
    for line in (people.eye_line, people.mouth_line):
        y = (people.centre_y + people.scale * line) * 100
        assert ((y1 < y) & (y < y2)).all()
    middle = (people.centre_x + people.scale * people.yaw) * 100
    assert ((x1 < middle) & (middle < x2)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: generate(-1, 5), "seed is -1", id="seed"),
        pytest.param(lambda: generate(0, -5), "n is -5", id="number"),
        pytest.param(lambda: generate(0, 5, first=-1), "first is -1", id="first"),
        pytest.param(lambda: generate(0, 5, 15), "15 pixels shows nothing; at least 16", id="size"),
        pytest.param(lambda: scene(0, 5), "1 to 4 faces, not 5", id="too many"),
        pytest.param(lambda: scene(0, 0), "1 to 4 faces, not 0", id="none"),
        pytest.param(lambda: scene(0, 1, 63), "at least 64", id="small scene"),
        pytest.param(lambda: SyntheticFaces(0, -1), "n is -1", id="set"),
    ],
)
def test_numbers_out_of_range_are_refused(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_nothing_can_be_asked_for() -> None:
    assert generate(0, 0)[0].shape == (0, SIZE, SIZE, 3)
    assert len(SyntheticFaces(0, 0)) == 0


# The brush: areas and lengths known from geometry.


def upright(size: int = 64) -> Canvas:
    """A canvas whose face is upright, with 20 pixels to the unit."""
    person = same_person([30])
    fields = {"centre_x": 0.5, "centre_y": 0.5, "scale": 20 / size, "tilt": 0.0}
    for name, value in fields.items():
        getattr(person, name)[:] = value
    canvas = Canvas.blank(person, size)
    canvas.pixels[...] = 0
    return canvas


@pytest.mark.parametrize(("across", "down"), [(1.0, 1.0), (0.5, 1.2), (0.33, 0.21)])
def test_an_ellipse_covers_its_area(across: float, down: float) -> None:
    mask = upright().ellipse(0.013, 0.021, across, down)
    assert mask.sum() == pytest.approx(np.pi * across * down * 400, rel=0.02)
    assert (mask >= 0).all()
    assert (mask <= 1).all()


@pytest.mark.parametrize("pixels", [0.4, 1.0, 3.0])
def test_a_line_covers_its_thickness(pixels: float) -> None:
    canvas = upright()
    mask = canvas.stroke(canvas.u - 0.037, pixels / 20)
    assert mask.sum(axis=2) == pytest.approx(np.full((1, 64), pixels), rel=0.02)


def test_a_window_holds_its_rectangle_and_paints_in_place() -> None:
    canvas = upright()
    part = canvas.window(-0.5, 0.25, 0.0, 0.5)
    assert part.u.min() <= -0.5
    assert part.u.max() >= 0.25
    assert part.v.min() <= 0.0
    assert part.v.max() >= 0.5
    assert part.u.shape[2] < 64 * 0.4
    row, column = part.origin
    assert canvas.u[0, row, column] == part.u[0, 0, 0]
    part.paint(np.array([[200.0, 100.0, 50.0]], np.float32), np.ones_like(part.u))
    assert canvas.pixels[0, :, row, column].tolist() == [200, 100, 50]
    inner = part.window(-0.2, 0.0, 0.1, 0.2)
    assert canvas.v[0, inner.origin[0], inner.origin[1]] == inner.v[0, 0, 0]
    outside = canvas.window(5.0, 6.0, 5.0, 6.0)
    assert outside.u.size == 0


def test_a_tilted_face_turns_by_its_angle() -> None:
    person = same_person([30])
    person.tilt[:] = 2 * (np.sqrt(2) - 1)  # twice the tangent of 22.5°: 45°
    x, y, cosine, sine = (float(value[0]) for value in Canvas.blank(person, 64).placing)
    assert cosine == pytest.approx(sine)
    assert np.hypot(cosine, sine) == pytest.approx(float(person.scale[0]) * 64)
    assert (x, y) == pytest.approx((float(person.centre_x[0]) * 64, float(person.centre_y[0]) * 64))


def test_soft_shapes_end_at_their_edge() -> None:
    x = np.array([-2, -1, -0.5, 0, 0.5, 1, 2], np.float32)
    assert bump(x).tolist() == [0, 0, 0.5625, 1, 0.5625, 0, 0]
    assert wave(np.array([-0.75, 0, 0.25, 0.5, 1.25], np.float32)).tolist() == [0.25, 0, 0.25, 0.5, 0.25]
    u, v = np.meshgrid(x, x)
    assert (blob(u, v, 0, 0, 1, 1) > 0).sum() == 9
    assert ellipse_distance(x, np.zeros_like(x), 0, 0, 1, 1).tolist() == [1, 0, -0.5, -1, -0.5, 0, 1]
    assert spread(x).shape == (7, 1, 1)
