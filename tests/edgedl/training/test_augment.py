"""Augmentation: each step does what it says, and only that."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Generator

from edgedl.training import augment
from edgedl.training.augment import Augmentation
from runtime.errors import InputError

NONE = Augmentation.none()


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


@pytest.fixture
def images() -> torch.Tensor:
    """Smooth colour pictures, uint8 (16, 3, 40, 40), as the pipeline hands them over: channels last in memory."""
    grid = np.linspace(0, 3, 40)
    waves = [
        127 + 100 * np.sin(np.add.outer(grid * (1 + k % 3), grid * (k + 1) / 4)[..., None] + np.arange(3))
        for k in range(16)
    ]
    return torch.from_numpy(np.stack(waves).astype(np.uint8)).permute(0, 3, 1, 2)


def test_none_is_the_plain_resize(images):
    assert torch.equal(NONE(images, None, generator()), images.float())
    expected = torch.nn.functional.interpolate(images.float(), (32, 32), mode="bilinear", antialias=True)
    assert torch.allclose(NONE(images, 32, generator()), expected, atol=1e-4)


def test_same_seed_same_batch_and_another_seed_another(images):
    first = Augmentation()(images, 32, generator(1))
    assert torch.equal(first, Augmentation()(images, 32, generator(1)))
    assert not torch.equal(first, Augmentation()(images, 32, generator(2)))
    assert first.shape == (16, 3, 32, 32)
    assert first.dtype == torch.float32
    assert first.min() >= 0
    assert first.max() <= 255


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_input_is_never_changed(images, dtype):
    images = images.to(dtype)
    before = images.clone()
    for settings in (Augmentation(), replace(NONE, noise=9.0), replace(NONE, erase=1.0), replace(NONE, blur=1.0)):
        settings(images, None, generator())
        assert torch.equal(images, before)


def test_flip(images):
    flipped = replace(NONE, flip=1.0)(images, None, generator())
    assert torch.allclose(flipped, images.flip(3).float(), atol=1e-2)
    half = replace(NONE, flip=0.5)(images, None, generator())
    as_is = (half - images).abs().amax(dim=(1, 2, 3)) < 1e-2
    mirrored = (half - images.flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-2
    assert (as_is ^ mirrored).all()
    assert 2 < as_is.sum() < 14


def affine_moment(picture: torch.Tensor) -> tuple[float, float]:
    """Centre of mass of (H, W), from -1 to 1."""
    ys, xs = ((torch.arange(size) * 2 + 1) / size - 1 for size in picture.shape)
    mass = picture.sum()
    return float((picture.sum(dim=0) * xs).sum() / mass), float((picture.sum(dim=1) * ys).sum() / mass)


@pytest.mark.parametrize(
    ("settings", "limit"),
    [({"translate": 0.2}, 0.4), ({"rotate": 30.0}, 0.28), ({"scale": 0.3}, 0.16)],
    ids=["translate", "rotate", "scale"],
)
def test_geometry_moves_a_spot_within_its_limits(settings, limit):
    """A spot right of the centre, at (0.5, 0): rotation moves it by up to 2·0.5·sin(15°), scale by 0.3·0.5."""
    spot = torch.zeros(64, 3, 41, 41)
    spot[:, :, 18:23, 28:33] = 255
    moved = replace(NONE, **settings)(spot, None, generator())
    x0, y0 = affine_moment(spot[0, 0])
    shifts = torch.tensor([affine_moment(picture[0]) for picture in moved]) - torch.tensor([x0, y0])
    extents = shifts.abs().amax(dim=0) if "translate" in settings else shifts.norm(dim=1).amax(dim=0)
    assert (extents > 0.6 * limit).all()
    assert (extents <= limit + 0.02).all()
    if "rotate" in settings:
        radius = (shifts + torch.tensor([x0, y0])).norm(dim=1)
        assert torch.allclose(radius, torch.tensor(x0).hypot(torch.tensor(y0)), atol=0.02)


def test_geometry_matches_torchs_own_affine_grid(images):
    affine = torch.eye(2, 3).repeat(16, 1, 1) + 0.1 * torch.randn(16, 2, 3, generator=generator())
    grid = torch.nn.functional.affine_grid(affine, [16, 3, 40, 40], align_corners=False)
    expected = torch.nn.functional.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    assert torch.allclose(augment._warp(images, affine), expected, atol=1e-2)


def test_gray_has_one_channel_thrice(images):
    gray = replace(NONE, gray=1.0)(images, None, generator())
    assert torch.allclose(gray[:, 0], gray[:, 1], atol=1e-3)
    luma = torch.tensor([0.299, 0.587, 0.114])
    assert torch.allclose(gray[:, 0], torch.einsum("nchw,c->nhw", images.float(), luma), atol=1e-2)


def test_brightness_scales_and_contrast_spreads():
    picture = torch.full((32, 3, 8, 8), 100.0)
    picture[..., 4:] = 140.0
    bright = replace(NONE, brightness=0.3)(picture, None, generator())
    ratio = bright / picture
    assert torch.allclose(ratio, ratio[:, :1, :1, :1].expand_as(ratio), atol=1e-5)
    assert 0.7 <= ratio.min() < 0.8
    assert 1.2 < ratio.max() <= 1.3
    spread = replace(NONE, contrast=0.5)(picture, None, generator())
    assert torch.allclose(spread.mean(dim=(1, 2, 3)), torch.tensor(120.0), atol=1e-2)
    difference = spread[..., -1] - spread[..., 0]
    assert 20 <= difference.min() < 30
    assert 50 < difference.max() <= 60


def test_saturation_and_colour_keep_gray_pictures_as_they_should():
    gray = torch.full((32, 3, 8, 8), 90.0)
    assert torch.allclose(replace(NONE, saturation=0.9)(gray, None, generator()), gray, atol=1e-3)
    tinted = replace(NONE, colour=0.1)(gray, None, generator())[:, :, 0, 0] / 90
    assert tinted.min() >= 0.9
    assert tinted.max() <= 1.1
    assert (tinted.std(dim=1) > 0.005).float().mean() > 0.9


def test_noise_has_the_strength_asked_for():
    noisy = replace(NONE, noise=10.0)(torch.full((64, 3, 32, 32), 128.0), None, generator())
    deviations = noisy.std(dim=(1, 2, 3))
    assert deviations.max() < 10.5
    assert deviations.mean() == pytest.approx(5, abs=0.8)
    assert noisy.mean() == pytest.approx(128, abs=0.2)


def test_blur_keeps_the_mean_and_spreads_a_point():
    point = torch.zeros(16, 3, 15, 15)
    point[:, :, 7, 7] = 200
    blurred = replace(NONE, blur=1.0)(point, None, generator())
    assert torch.allclose(blurred.sum(dim=(2, 3)), torch.tensor(200.0), atol=1e-2)
    assert (blurred[:, :, 7, 7] < 199.9).all()
    assert blurred[:, :, 7, 7].amin() < 50
    assert torch.allclose(blurred, blurred.transpose(2, 3), atol=1e-4)


def test_coarse_removes_fine_detail_and_keeps_the_mean():
    board = torch.zeros(8, 3, 32, 32)
    board[:, :, ::2, ::2] = board[:, :, 1::2, 1::2] = 255
    coarse = replace(NONE, coarse=1.0)(board, None, generator())
    assert coarse.std() < 0.4 * board.std()
    assert coarse.mean() == pytest.approx(127.5, abs=3)


def test_erase_covers_one_rectangle_of_one_level():
    erased = replace(NONE, erase=1.0, erase_area=0.25)(torch.full((64, 3, 40, 40), 300.0), None, generator())
    covered = erased[:, 0] < 255
    assert (covered.float().mean(dim=(1, 2)) <= 0.26).all()
    assert covered.any(dim=(1, 2)).float().mean() > 0.95
    for picture, mask in zip(erased, covered, strict=True):
        assert torch.equal(mask, mask.any(dim=1)[:, None] & mask.any(dim=0)[None])  # a rectangle
        assert picture[:, mask].unique().numel() <= 1


def test_probabilities_are_kept():
    chosen = replace(NONE, erase=0.25, erase_area=1.0)(torch.full((800, 3, 6, 6), 300.0), None, generator())
    share = (chosen.amin(dim=(1, 2, 3)) < 255).float().mean().item()
    assert share == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize("name", [field.name for field in fields(Augmentation)])
def test_impossible_strengths_are_refused(name):
    with pytest.raises(InputError):
        replace(NONE, **{name: -0.1})
