"""What a network has learnt, from the photo to the picture, on a network whose units are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgedl.figures.occlusion import occlusion_figure
from edgedl.nn.age import AgeNetwork
from edgedl.tasks.age.network.compact import CompactNetwork
from edgedl.tasks.age.network.resnet10 import ResNet10
from edgedl.tasks.features import plot as features
from edgedl.tasks.features import subjects as feature_subjects
from edgedl.tasks.features.figure import features_figure, filter_sheet, first_answer, tiled
from edgedl.tasks.features.subjects import Stage, Subject, subject
from edgedl.tasks.occlusion.plot import plot_occlusion
from runtime.errors import BundleError, InputError
from runtime.media.pictures import write_png
from runtime.occlusion import Occlusion
from tests.bundles import write_scale_bundle
from tests.runtime.test_occlusion import photo, region_bundle


class Reds(nn.Module):
    """Two scores: the mean of red levels in the left half, and in the right half, by two filters and a pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.colour = nn.Conv2d(3, 2, 1, bias=False)
        self.colour.weight.data = torch.tensor([[1.0, 0, 0], [0, 1, 0]])[:, :, None, None] / 255
        self.halves = nn.Identity()

    def forward(self, levels):
        red = self.halves(self.colour(levels))[:, :1]
        width = red.shape[3] // 2
        return torch.cat([red[..., :width].mean(dim=(2, 3)), red[..., width:].mean(dim=(2, 3))], dim=1)


def reds() -> Subject:
    network = Reds().eval()
    return Subject(
        name="reds",
        network=network,
        first=network.colour,
        stages=(Stage("texture", network.halves),),
        last=network.halves,
        side=16,
        ascent_side=8,
        objects=(0, 1),
        ask=lambda scores: [("left", lambda s: s[:, 0])],
        label=("left", "right").__getitem__,
    )


def test_the_sheet_shows_what_the_network_is_known_to_do():
    pixels = np.random.default_rng(0).integers(100, 256, (16, 16, 3)).astype(np.uint8)
    sheet = features.look_at(reds(), pixels, steps=40)
    np.testing.assert_array_equal(sheet.photo, pixels)
    texture, objects = sheet.rows
    assert sorted(texture.names) == ["unit 0", "unit 1"]
    by_unit = dict(zip(texture.names, texture.pictures.mean(axis=(1, 2)), strict=True))
    assert by_unit["unit 0"][0] > 200 > 150 > by_unit["unit 0"][1]
    assert by_unit["unit 1"][1] > 200 > 150 > by_unit["unit 1"][0]
    assert objects.names == ("left", "right")
    left = objects.pictures[0][..., 0].astype(float)
    assert left[:, 2].mean() > 180
    assert objects.answers is None
    hidden = sheet.maps[-1]
    assert hidden.name == "occlusion: left"
    # The half that does not count is dark, up to the order in which float32 adds up.
    assert np.abs(hidden.values[:, 9:]).max() < 1e-6
    assert np.abs(hidden.values[:, :7]).max() > 1e-3


def test_the_figure_names_its_columns_and_axes():
    sheet = features.look_at(reds(), photo(16, 16), steps=1)
    figure = features_figure(sheet)
    titles = [axes.get_title() for axes in figure.axes]
    for title in ("pixel", "edge", "texture", "object", "the photo", "Grad-CAM: left", "occlusion: left"):
        assert title in titles
    maps = [axes for axes in figure.axes if axes.get_title().startswith(("Grad-CAM", "occlusion"))]
    assert {(axes.get_xlabel(), axes.get_ylabel()) for axes in maps} == {("x (pixels)", "y (pixels)")}


def test_small_panels_tell_their_places_and_scales():
    lively = np.zeros((64, 64, 3), np.uint8)
    lively[32:56, 8:32] = photo(24, 24)
    sheet = replace(features.look_at(reds(), photo(16, 16), steps=1), photo=lively)
    figure = features_figure(sheet)
    axes = {axes.get_title(): axes for axes in figure.axes}
    for row in sheet.rows[:-1]:
        unit = axes[f"{row.names[0]} on the photo"]
        np.testing.assert_array_equal(unit.images[0].get_array(), row.answers[0])
        assert (unit.get_xlabel(), unit.get_ylabel()) == ("x (places)", "y (places)")
    scales = [bar for bar in figure.axes if bar.get_xlabel() == "answer of the unit"]
    assert len(scales) == len(sheet.rows)  # of each depth but the last, and of a first filter
    whole, *_ = [found for title, found in axes.items() if title == "pixel"]
    detail = next(found for title, found in axes.items() if title.endswith("of its pixels"))
    side = len(sheet.photo)
    assert whole.images[0].get_extent() == [-0.5, side - 0.5, side - 0.5, -0.5]
    left, right, bottom, top = (round(edge + 0.5) for edge in detail.images[0].get_extent())
    assert (left, right - left, bottom - top) == (8, 24, 24)
    assert top > left
    np.testing.assert_array_equal(detail.images[0].get_array(), sheet.photo[top:bottom, left:right])
    for shown in (whole, detail):
        assert (shown.get_xlabel(), shown.get_ylabel()) == ("x (pixels)", "y (pixels)")


@pytest.mark.parametrize("backbone", [CompactNetwork, ResNet10], ids=["compact", "resnet10"])
def test_an_age_network_can_be_looked_at(backbone):
    torch.manual_seed(0)
    chosen = feature_subjects._age(AgeNetwork(backbone(), [float(y) for y in range(101)], 48).eval(), "ages")
    pixels = photo(60, 60)
    sheet = features.look_at(chosen, pixels, steps=1)
    assert [row.stage for row in sheet.rows] == ["texture", "motif", "part", "object"]
    assert sheet.rows[-1].names == ("20 years", "40 years", "60 years", "80 years")
    assert [shown.name.split()[0] for shown in sheet.maps] == ["Grad-CAM:", "Grad-CAM:", "occlusion:"]
    assert all(np.isfinite(shown.values).all() for shown in sheet.maps)


def test_only_known_networks_can_be_looked_at(tmp_path):
    with pytest.raises(InputError, match="is not a run"):
        subject(str(tmp_path))
    (tmp_path / "config.json").write_text('{"schema_version": 1, "task": "sgd"}')
    with pytest.raises(
        InputError, match="is a run of sgd; features are shown of runs of age and of efficientnet-lite0"
    ):
        subject(str(tmp_path))


def test_the_first_answer_is_the_strongest_filters():
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[:, 4:] = 255
    kernels = np.zeros((2, 3, 1, 2))
    kernels[1, :, 0] = (-1, 1)
    found = first_answer(pixels, kernels)
    assert np.unique(np.nonzero(found)[1]).tolist() == [3]
    assert found[0, 3] == pytest.approx(3)
    sheet = filter_sheet(kernels)
    assert sheet.shape == (1, 5, 3)
    assert sheet[0, :2, 0].tolist() == [0, 255]  # the strongest first
    assert tiled(np.zeros((3, 4, 5, 3), np.uint8)).shape == (4 * 2 + 3, 5 * 2 + 3, 3)


def test_occlusion_of_a_bundle_is_drawn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_png("a.png", photo(32, 48))
    bundle = region_bundle(tmp_path / "region.edge", ("N", "H", "W", 3))
    assert str(plot_occlusion(bundle.path, "a.png", None)) == "a-occlusion.png"
    assert (tmp_path / "a-occlusion.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="takes float32"):
        plot_occlusion(write_scale_bundle(tmp_path / "scale.edge").path, "a.png", None)
    with pytest.raises(BundleError, match="there is no such bundle"):
        plot_occlusion("none.edge", "a.png", None)
    with pytest.raises(InputError, match="No such file"):
        plot_occlusion(bundle.path, "none.png", None)


def test_the_occlusion_figure_has_a_scale_with_its_unit():
    found = Occlusion(12.5, np.array([[0.0, 3.0]]), (0,), (0, 4), 4, (4, 8))
    figure = occlusion_figure(photo(4, 8), found, "age", "year")
    assert figure.axes[0].get_title() == "age 12.5 year"
    assert figure.axes[2].get_ylabel() == "age, whole less hidden (year)"
    image = figure.axes[1].get_images()[1]
    np.testing.assert_array_equal(image.get_array(), found.per_pixel())
    assert image.get_clim() == (-3, 3)
