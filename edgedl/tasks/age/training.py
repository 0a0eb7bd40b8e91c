"""How age networks learn: the data as the bundle will see them, the recipes, and the network of a run."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgedl.data.samples import FaceDataset
from edgedl.data.splits import require_training_parts, set_apart
from edgedl.data.synthetic_faces import EMBEDDED_FACES, SyntheticFaces
from edgedl.data.unreadable import Unreadable
from edgedl.nn.age import AgeNetwork
from edgedl.tasks.age.bundle import dlib_crop
from edgedl.tasks.age.config import PUBLIC_WEIGHTS, WITH_DATA, AgeConfig, Network, check_data_options, recipes
from edgedl.tasks.age.data.face_crops import FaceCrops, face_crops
from edgedl.tasks.age.data.formats import open_faces
from edgedl.tasks.age.intervals import LEAST_FACES, calibrate
from edgedl.tasks.age.network.compact import CompactNetwork
from edgedl.tasks.age.network.mobilenet import MobileNet
from edgedl.tasks.age.network.normalisation import absorb_statistics
from edgedl.tasks.age.network.resnet10 import ResNet10
from edgedl.tasks.age.public import public_bundle
from edgedl.tasks.age.weights.mobilenet import load_mobilenet
from edgedl.tasks.age.weights.resnet10 import SIZE as PUBLIC_SIZE
from edgedl.tasks.age.weights.resnet10 import load_age_resnet10
from edgedl.tasks.run_config import described, trained_with
from edgedl.training.arguments import train_options
from edgedl.training.augment import Augmentation, resize
from edgedl.training.batches import Samples
from edgedl.training.fit import fit
from edgedl.training.lightning_module import PrepareImages, TaskModule
from edgedl.training.objectives import AgeLearning, AgeObjective
from edgedl.training.options import TrainOptions
from edgedl.training.processes import is_first_process
from edgedl.training.progress import Progress
from edgedl.training.run import Run
from edgedl.weights.catalogue import Weights
from edgedl.weights.fetch import cache_folder
from exporters.denormals import flush_denormals
from runtime.errors import InputError
from runtime.faces import crop_to_json
from runtime.intervals import Interval
from runtime.memory import large_blocks_kept
from runtime.pipelines.age import AgePipeline

log = logging.getLogger(__name__)

ALIGNED_SETS = frozenset({"utkface", "synthetic-faces"})
"""Sets whose pictures are aligned faces: a network trained on them learns both views, as it is and as cropped."""

OLDEST_LOGIT_FALL = 0.15
"""Per year beyond the published 80 classes, the new classes begin so much less likely than the last one."""

STATISTICS_FACES = 2048

AT_ONCE = 32
"""Faces that are asked about together. More take more memory and no less time."""

MOST_SIDE = 200
"""Pixels. UTKFace's pictures have no more, and memory grows with the square."""

CALIBRATION = "calibration"
"""The name of the part of the training faces that calibrates the interval."""

_BACKBONES: Mapping[Network, Callable[[], nn.Module]] = {
    "mobilenet": MobileNet,
    "resnet10": ResNet10,
    "compact": CompactNetwork,
}


def recipe_with_pictures(given: bool) -> TrainOptions:
    """The recipe for given faces, or for the embedded ones, with how the pictures are varied."""
    recipe = recipes()[WITH_DATA if given else ""]
    if not given:
        return replace(recipe, augmentation=Augmentation(rotate=4.0, erase=0.0))
    return replace(
        recipe,
        augmentation=Augmentation(
            translate=0.06, scale=0.15, rotate=12, colour=0.08, gray=0.1, noise=4, blur=0.1, coarse=0.1, erase=0.5
        ),
        settle_augmentation=Augmentation(
            translate=0.03,
            scale=0.06,
            rotate=5,
            brightness=0.12,
            contrast=0.12,
            saturation=0.12,
            colour=0.04,
            gray=0.03,
            noise=0,
            blur=0,
            coarse=0,
            erase=0.15,
        ),
    )


def train_age(args: Namespace, run_path: Path) -> dict[str, Any]:
    """Trains an age network as the command line says.

    Returns:
        MAE of the best epoch, its number, and the seconds taken.

    Raises:
        InputError: data or options that do not fit.
    """
    check_data_options(args)
    run = Run.open(run_path) if args.resume else None
    begun = AgeConfig.of(run) if run else None
    recipe = recipe_with_pictures(bool(args.data))
    options = train_options(args, begun.begun_with(recipe) if begun else recipe)
    config = begun or AgeConfig.asked(args, options)
    config.check_resumed(args, run_path)
    dataset = (
        open_faces(args.data, args.format)
        if args.data
        else SyntheticFaces(options.seed, EMBEDDED_FACES if args.faces is None else args.faces)
    )
    log.info("%s", dataset.summary())
    crop = dlib_crop(config.size)
    if begun:
        begun.check_data(dataset, "faces", run_path)
    else:
        config = replace(config, data=described(dataset), crop=crop_to_json(crop))
    # Whatever can be wrong with what was asked for shows before the run's folder is made.
    require_training_parts(dataset)
    subsets = parts_of(dataset, config.calibration or 0.0)
    unreadable = Unreadable(dataset.name, sum(map(len, subsets.values())), args.max_unreadable)
    objective = AgeObjective(
        config.years,
        config.objective.name,
        sigma=config.objective.sigma,
        expectation_weight=config.objective.expectation_weight,
    )
    torch.manual_seed(options.seed)
    network = network_of(config)
    side = crop_side(config.size)
    cache = cache_folder() / "crops" if args.cache else None
    with (
        detector_pipeline() as pipeline,
        Run.create(run_path, config.to_json()).provisional() if run is None else nullcontext(run) as run,
    ):
        parts = {
            name: face_crops(
                part, pipeline, crop, side, cache=cache, unreadable=unreadable, progress=Progress(f"cropping {name}")
            )
            for name, part in subsets.items()
        }
        unreadable.check({f"faces in split {name}": len(part) for name, part in parts.items()})
    run = run.amended(**trained_with(options), **unreadable.in_config(run.config))
    ages = {
        name: np.clip(subsets[name].ages[part.rows], config.years[0], config.years[-1]) for name, part in parts.items()
    }
    if config.weights:
        start_from_public(network, parts["train"])
    both = dataset.name in ALIGNED_SETS
    train = Samples(
        {"image": [parts["train"].pipeline, *([parts["train"].whole] if both else [])], "age": ages["train"]}
    )
    validation = Samples({"image": parts["val"].pipeline, "age": ages["val"]})
    module = TaskModule(network, AgeLearning(objective), prepare=PrepareImages(config.size), head=("head",))
    result = fit(module, train, validation, run, options)
    if not is_first_process():  # what is left is done once
        return {}
    sharpness, mae = calibrate_sharpness(network, parts["val"].pipeline, ages["val"])
    run.save_best(network.state_dict(), epoch=result.best_epoch, metric=result.metric, value=mae)
    interval = interval_of(network, parts[CALIBRATION], subsets[CALIBRATION]) if CALIBRATION in parts else None
    run.amended(interval=None if interval is None else interval.to_json())
    return {
        "metric": result.metric,
        "best": mae,
        "before_calibration": result.best,
        "sharpness": sharpness,
        "interval": None if interval is None else interval.measured.all.to_json(),
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "seconds": round(result.seconds, 1),
        "not_found": {name: int((~part.found).sum()) for name, part in parts.items()},
        "unreadable": unreadable.to_json(),
    }


def crop_side(size: int) -> int:
    """Side in pixels of the crops in memory: half as much again as the network looks at, so that turns blur little."""
    return max(size, min(size * 3 // 2, MOST_SIDE))


def parts_of(dataset: FaceDataset, calibration: float) -> dict[str, FaceDataset]:
    """The parts of a data set by name: train, val, and a share of the former that calibrates the interval.

    All pictures of a person, where the set tells people apart, are in one of them. Where the share is too few faces to
    calibrate with, all are learnt from.
    """
    train = dataset.split("train")
    keys = [sample.subject or sample.name for sample in train]
    apart = set_apart(keys, calibration, CALIBRATION)
    rows = [row for row, key in enumerate(keys) if key in apart]
    parts = {"train": train, "val": dataset.split("val")}
    if len(rows) >= LEAST_FACES:
        parts["train"] = train.take([row for row, key in enumerate(keys) if key not in apart])
        parts[CALIBRATION] = train.take(rows)
    elif calibration:
        log.info("the interval stays uncalibrated: %d faces are too few, it takes %d", len(rows), LEAST_FACES)
    return parts


@flush_denormals()
@large_blocks_kept()
def interval_of(network: AgeNetwork, crops: FaceCrops, faces: FaceDataset) -> Interval | None:
    """The interval of a trained network's ages; None, with a word of why, where it cannot be calibrated.

    Args:
        network: in evaluation mode, its sharpness set.
        crops: of faces that have neither been learnt from nor chosen anything.
        faces: the same ones, and those that could not be read.
    """
    with torch.no_grad():
        predicted = torch.cat(
            [network.answers(network.logits(levels))[0] for levels in _levels(crops.pipeline, network.size)]
        )
    read = faces.take(crops.rows.tolist())
    keys = [sample.subject or sample.name for sample in read]
    try:
        return calibrate(
            predicted.double().numpy(),
            read.ages.astype(np.float64),
            keys,
            dataset=faces.name,
            split=f"{CALIBRATION} part of train",
        )
    except InputError as error:
        log.warning("the interval stays uncalibrated: %s", error)
        return None


def network_of(config: AgeConfig) -> AgeNetwork:
    """The network that a run's configuration describes, with weights from chance."""
    return AgeNetwork(_BACKBONES[config.network](), config.years, config.size, config.dropout)


def trained_network(run: Run) -> AgeNetwork:
    """The network of a run as it was in its best epoch, in evaluation mode.

    Raises:
        InputError: the run is none of an age network, or none of its epochs has ended.
    """
    network = network_of(AgeConfig.of(run))
    network.load_state_dict(run.best_weights())
    return network.eval()


def weights_of(config: AgeConfig) -> list[Weights]:
    """The public weights that a run started from."""
    return [w for w in PUBLIC_WEIGHTS.values() if w.name in config.weights]


@flush_denormals()
@large_blocks_kept()
def start_from_public(network: AgeNetwork, faces: FaceCrops) -> None:
    """Gives a network the public weights and the statistics of the data.

    A ResNet-10 of more classes also gets the public head. A MobileNet's head starts from chance, and its finest blocks
    stay as they are published.
    """
    backbone = network.backbone
    if isinstance(backbone, MobileNet):
        backbone.load_state_dict(load_mobilenet().state_dict())
        size = network.size
    else:
        public = load_age_resnet10()
        count = len(public.years)
        backbone.load_state_dict(public.backbone.state_dict())
        with torch.no_grad():
            network.head.weight[:count] = public.head.weight
            network.head.bias[:count] = public.head.bias
            beyond = torch.arange(1, len(network.years) - count + 1, dtype=torch.float32)
            network.head.weight[count:] = public.head.weight[-1]
            network.head.bias[count:] = public.head.bias[-1] - OLDEST_LOGIT_FALL * beyond
        # At the resolution that the weights were learnt at: there the published function is right.
        size = PUBLIC_SIZE
    network.eval()
    absorb_statistics(backbone, _levels(faces.pipeline[:STATISTICS_FACES], size))
    if isinstance(backbone, MobileNet):
        backbone.freeze()


@flush_denormals()
@large_blocks_kept()
def calibrate_sharpness(
    network: AgeNetwork, crops: np.ndarray[Any, np.dtype[np.uint8]], ages: np.ndarray[Any, np.dtype[np.float32]]
) -> tuple[float, float]:
    """Chooses the soft-max's sharpness that gives held-out faces the smallest MAE, and sets it.

    One number, fitted as the temperature of Guo et al. 2017, "On calibration of modern neural networks": learning from
    label distributions of some years' width leaves the answer's distribution wider than it should be, and its
    expectation pulled to the middle of all ages.

    Args:
        network: trained, in evaluation mode.
        crops: (n, S, S, 3) held-out faces.
        ages: (n,) in years.

    Returns:
        The sharpness and its MAE in years.
    """
    with torch.no_grad():
        logits = torch.cat([network.logits(levels) for levels in _levels(crops, network.size)])
        truth = torch.from_numpy(np.asarray(ages, np.float32))

        def error(sharpness: float) -> float:
            probabilities = (logits * sharpness).softmax(dim=1)
            return float(((probabilities * network.years).sum(dim=1) - truth).abs().mean())

        best = min((round(1 + 0.1 * step, 1) for step in range(31)), key=error)
        network.sharpness.fill_(best)
    return best, error(best)


def detector_pipeline() -> AgePipeline:
    """The public age bundle opened: its detector and crop code are what a trained network's bundle will run."""
    return AgePipeline(public_bundle(), threads=1)


def _levels(crops: np.ndarray[Any, np.dtype[np.uint8]], size: int) -> Iterator[Tensor]:
    """uint8 crops (n, S, S, 3) as batches of levels (B, 3, size, size)."""
    for start in range(0, len(crops), AT_ONCE):
        yield resize(torch.from_numpy(crops[start : start + AT_ONCE]).permute(0, 3, 1, 2), size)
