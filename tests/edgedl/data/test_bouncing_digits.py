"""Bouncing digits: Sync-DRAW's grammar, captions that are true, pairs that training never shows, the same bytes."""

from __future__ import annotations

import hashlib
import re
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgedl.tasks.caption.data import bouncing_digits
from edgedl.tasks.caption.data.bouncing_digits import (
    ABSENT,
    DIGIT,
    FRAMES,
    FREE,
    HELD_OUT,
    MOTIONS,
    SIZE,
    BouncingDigits,
    Scripts,
    enlarge,
    film,
    handwritten,
    jumps,
    learnt_words,
    positions,
    sentence,
    write_scripts,
)
from runtime.errors import InputError, MissingExtraError

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

# The two sentences of the published generator (Mittal et al. 2017), letter for letter.
ONE = re.compile(r"the digits (\d) is moving (left and right|up and down) \.")
TWO = re.compile(r"digit (\d) is (left and right|up and down) and digit (\d) is (left and right|up and down) \.")


@pytest.fixture(scope="module")
def dataset() -> BouncingDigits:
    return BouncingDigits(seed=3, train=400, validation=120)


def pairs(caption: str) -> list[tuple[int, int]]:
    """Digits and motions, as the sentence says them."""
    match = ONE.fullmatch(caption) or TWO.fullmatch(caption)
    assert match, caption
    said = match.groups()
    return [(int(digit), MOTIONS.index(motion)) for digit, motion in zip(said[::2], said[1::2], strict=True)]


def script(digits: list[int], motions: list[int], starts: list[list[float]]) -> Scripts:
    images = [int(np.flatnonzero(handwritten()[1] == max(digit, 0))[0]) for digit in digits]
    return Scripts(np.array([digits]), np.array([motions]), np.array([images]), np.array([starts]))


def test_the_two_sentences() -> None:
    assert sentence([3], [0]) == "the digits 3 is moving left and right ."
    assert sentence([3, 7], [0, 1]) == "digit 3 is left and right and digit 7 is up and down ."


def test_every_caption_is_one_of_the_two(dataset: BouncingDigits) -> None:
    for index in range(len(dataset)):
        (caption,) = dataset.captions(index)
        assert [digit for digit, _ in pairs(caption)] == [d for d in dataset.digits()[index] if d != ABSENT]


@pytest.mark.parametrize(
    ("start", "speed", "expected"),
    [
        (0.0, 2.0, [0.2, 0.4, 0.6, 0.8, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]),
        (0.55, 2.0, [0.75, 0.95, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]),
        (0.3, -2.0, [0.1, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 0.8, 0.6, 0.4]),
        (0.5, 20.0, [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]),
    ],
    ids=["there and back", "held at the end", "the other way", "faster than the way is long"],
)
def test_it_turns_round_at_the_border(start: float, speed: float, expected: list[float]) -> None:
    found = positions(np.array(start), speed)
    assert found.shape == (FRAMES,)
    assert found[: len(expected)] == pytest.approx(expected, abs=1e-12)


def test_corners_in_pixels_by_hand() -> None:
    """36 pixels are free; .2 of them is 7.2, and what is over is cut off."""
    corners = script([4, 5], [0, 1], [[0.5, 0.0], [0.0, 0.25]]).corners()[0]
    along = [7, 14, 21, 28, 36, 28, 21, 14, 7, 0]
    assert corners[0].tolist() == [[18, column] for column in along], "left and right: the column"
    assert corners[1].tolist() == [[row, 9] for row in along], "up and down: the row"


def test_the_words_are_true_of_the_pixels() -> None:
    for motion, axis in ((0, 1), (1, 0)):
        clip = film(script([7, ABSENT], [motion, 0], [[0.4, 0.4], [0, 0]]))[0]
        centres = np.array(
            [[np.average(np.arange(SIZE), weights=frame.sum(axis=1 - a)) for a in (0, 1)] for frame in clip]
        )
        assert np.ptp(centres[:, axis]) > 20
        assert np.ptp(centres[:, 1 - axis]) < 1e-9


def test_the_brighter_pixel_counts() -> None:
    both = script([1, 8], [0, 0], [[0.5, 0.5], [0.5, 0.6]])
    apart = [
        script([1, ABSENT], [0, 0], [[0.5, 0.5], [0, 0]]),
        script([8, ABSENT], [0, 0], [[0.5, 0.6], [0, 0]]),
    ]
    one, other = (film(clip)[0] for clip in apart)
    assert ((one > 0) & (other > 0)).any(), "they overlap"
    np.testing.assert_array_equal(film(both)[0], np.maximum(one, other))


def test_enlarged_digits_are_bilinear() -> None:
    """Against torch's bilinear resizing of the digit with a border of zeros."""
    levels = np.random.default_rng(0).integers(0, 17, (5, 8, 8))
    padded = F.pad(torch.from_numpy(levels).double()[:, None], (8, 8, 8, 8)) * 255 / 16
    large = F.interpolate(padded, scale_factor=DIGIT / 8, mode="bilinear", align_corners=False)
    expected = large[:, 0, DIGIT : 2 * DIGIT, DIGIT : 2 * DIGIT].numpy()
    assert np.abs(enlarge(levels) - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("digits", [1, 2])
def test_a_clip_does_not_depend_on_how_many_there_are(split: str, digits: int) -> None:
    few, many = write_scripts(5, split, digits, 3), write_scripts(5, split, digits, 40).take(np.arange(3))
    for name in ("digits", "motions", "images", "starts"):
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name))


def test_the_same_bytes_on_every_machine() -> None:
    pixels = BouncingDigits(0, train=8, validation=4).pixels()
    assert pixels.shape == (12, FRAMES, SIZE, SIZE)
    assert pixels.dtype == np.uint8
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == (
        "a67d705967d8f84195d3954c14bbde0ee2a30cf29beff646e69caac47c79673f"
    )


def test_another_seed_is_another_training_set_and_the_same_validation(dataset: BouncingDigits) -> None:
    other, again = BouncingDigits(4, 400, 120), BouncingDigits(3, 400, 120)
    assert again.identity == dataset.identity != other.identity
    assert not np.array_equal(other.split("train").pixels()[:20], dataset.split("train").pixels()[:20])
    np.testing.assert_array_equal(other.split("val").pixels(), dataset.split("val").pixels())
    assert dataset.split("train").identity != dataset.split("val").identity


def test_held_out_pairs_are_never_in_training_and_always_in_validation(dataset: BouncingDigits) -> None:
    shown = {name: [pairs(part.captions(i)[0]) for i in range(len(part))] for name in ("train", "val")
             for part in [dataset.split(name)]}  # fmt: skip
    assert not HELD_OUT & {pair for clip in shown["train"] for pair in clip}
    assert all(HELD_OUT & set(clip) for clip in shown["val"])
    assert {pair for clip in shown["val"] for pair in clip} >= HELD_OUT
    seen = {pair for clip in shown["train"] for pair in clip}
    assert seen == {(digit, motion) for digit in range(10) for motion in (0, 1)} - HELD_OUT
    for digit, motion in HELD_OUT:
        assert (digit, 1 - motion) in seen, "the digit is seen with its other motion"


def test_the_smaller_digit_comes_first_and_left_and_right_of_two_equal_ones() -> None:
    scripts = write_scripts(1, "train", 2, 600)
    said = [pairs(scripts.caption(index)) for index in range(len(scripts))]
    assert all(clip == sorted(clip) for clip in said)
    equal = [clip for clip in said if clip[0][0] == clip[1][0]]
    assert {(clip[0][1], clip[1][1]) for clip in equal} == {(0, 0), (0, 1), (1, 1)}


def test_validation_shows_other_handwriting() -> None:
    images, labels, kept = handwritten()
    assert images.shape == (1797, DIGIT, DIGIT)
    assert int(kept.sum()) == 180
    used = {split: write_scripts(0, split, 2, 400) for split in ("train", "val")}
    assert not kept[used["train"].images].any()
    assert kept[used["val"].images].all()
    for scripts in used.values():
        np.testing.assert_array_equal(labels[scripts.images], scripts.digits)
    everybodys = handwritten()[0]
    with pytest.raises(ValueError, match="read-only"):
        everybodys[0, 0, 0] = 1


@pytest.mark.parametrize("jumping", [False, True], ids=["moves", "jumps"])
@pytest.mark.parametrize("digits", [[0], [3], [0, 1], [3, 8], [3, 7], [7, 8]], ids=str)
def test_what_is_learnt_of_a_caption(digits: list[int], jumping: bool) -> None:
    """Jumping clips teach digits; moving ones teach the motion of digits that are seen with both."""
    words = [*sentence(digits, [0] * len(digits)).split()[:-1], "END"]
    learnt = learnt_words(digits, jumping=jumping)
    assert len(learnt) == len(words)
    with_one_motion = {digit for digit, _ in HELD_OUT}
    speaking_of = -1
    for word, taught in zip(words, learnt, strict=True):
        if word.isdecimal():
            speaking_of = int(word)
            assert taught == jumping
        elif word in ("left", "right", "up", "down"):
            assert taught == (not jumping and speaking_of not in with_one_motion)
        else:
            assert taught, word


def test_all_of_a_validation_caption_counts(dataset: BouncingDigits) -> None:
    part = dataset.split("val")
    for index in range(len(part)):
        assert part.learnt(index) == (True,) * len(part.captions(index)[0].split())


def test_half_of_the_training_clips_jump_and_tell_the_same(dataset: BouncingDigits) -> None:
    train = dataset.split("train")
    jumping = train.jumping()
    assert jumping.tolist() == [False] * 200 + [True] * 200
    assert not dataset.split("val").jumping().any()
    assert [train.captions(i) for i in range(200)] == [train.captions(200 + i) for i in range(200)]
    assert all(train.learnt(i) != train.learnt(200 + i) for i in range(200))
    pixels = train.pixels()
    assert all(not np.array_equal(pixels[i], pixels[200 + i]) for i in range(200))
    places = jumps(3, 200)
    assert places.shape == (200, 2, FRAMES, 2)
    assert (places.min(), places.max()) == (0, FREE), "everywhere, never outside"
    assert np.unique(places[0, 0], axis=0).shape[0] > FRAMES // 2
    np.testing.assert_array_equal(jumps(3, 5), places[:5])


def test_splits(dataset: BouncingDigits) -> None:
    sizes = {name: len(dataset.split(name)) for name in ("all", "train", "train-1", "train-2", "val", "val-1", "val-2")}
    assert sizes == {"all": 520, "train": 400, "train-1": 150, "train-2": 250, "val": 120, "val-1": 60, "val-2": 60}
    assert (dataset.split("val-1").digits()[:, 1] == ABSENT).all()
    assert (dataset.split("val-2").digits() != ABSENT).all()
    assert dataset.split("val").split("val-2").clip_name(0) == dataset.split("val-2").clip_name(0) == "val-00460"
    assert "520 clips (400 train, 120 val)" in dataset.summary()
    for name in ("test", "val-3", "val-", "-1", ""):
        with pytest.raises(InputError, match="it has train, val, val-1, val-2, all"):
            dataset.split(name)


def test_frames_are_the_gray_levels_three_times(dataset: BouncingDigits) -> None:
    part = dataset.split("val-2")
    frames = part.frames(7)
    assert frames.shape == (FRAMES, SIZE, SIZE, 3)
    np.testing.assert_array_equal(frames, np.repeat(part.pixels()[7][..., None], 3, axis=-1))


def test_too_few_clips() -> None:
    with pytest.raises(InputError, match="3 training and 600 validation clips; expected at least 4"):
        BouncingDigits(train=3)


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    handwritten.cache_clear()
    with pytest.raises(MissingExtraError, match=r"scikit-learn.*\[train\]"):
        bouncing_digits.BouncingDigits()
