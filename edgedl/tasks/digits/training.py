"""How networks that read digits learn: their recipes, the machines of a deep belief net, and the network of a run."""

from __future__ import annotations

import csv
import io
import logging
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from edgedl.data.digits import CLASSES, NAME, Digits, embedded_digits
from edgedl.tasks.digits.contrastive_divergence import PretrainOptions, pretrain
from edgedl.tasks.digits.ink import Ink
from edgedl.tasks.digits.network import ConvolutionalClassifier, DeepBeliefNet, SoftmaxClassifier
from edgedl.tasks.digits.objective import DigitLearning, PrepareInk, moved
from edgedl.training.arguments import train_options
from edgedl.training.batches import Samples, derived_seed
from edgedl.training.fit import fit
from edgedl.training.lightning_module import TaskModule
from edgedl.training.options import TrainOptions
from edgedl.training.run import Run, write_atomically
from runtime.errors import InputError

log = logging.getLogger(__name__)

PRETRAINING = "pretraining.csv"
HIDDEN = (256, 256)
DROPOUT: Mapping[str, float] = {"softmax": 0.0, "cnn": 0.3, "dbn": 0.1}
SMOOTHING: Mapping[str, float] = {"softmax": 0.0, "cnn": 0.05, "dbn": 0.0}


def recipe(model: str) -> TrainOptions:
    """How a model is trained unless said otherwise; so small networks gain nothing from a second thread."""
    if model == "softmax":
        return TrainOptions(
            epochs=40, batch_size=64, optimiser="adamw", lr=0.05, weight_decay=1e-3, schedule="one-cycle", ema=0.99,
            augmentation=moved(0.5), threads=1,
        )  # fmt: skip
    if model == "cnn":
        return TrainOptions(
            epochs=40, batch_size=64, optimiser="adamw", lr=5e-3, weight_decay=0.01, schedule="one-cycle", ema=0.99,
            augmentation=moved(1.0, rotate=10, scale=0.1), threads=1,
        )  # fmt: skip
    return TrainOptions(
        epochs=120, batch_size=64, optimiser="adamw", lr=5e-3, weight_decay=1e-3, schedule="one-cycle", ema=0.99,
        augmentation=moved(1.0, rotate=10, scale=0.1), threads=1,
    )  # fmt: skip


def train_digits(args: Namespace, run_path: Path) -> dict[str, Any]:
    """Trains a reader of digits as the command line says.

    Returns:
        The validation accuracy of the best epoch, its number, and the seconds taken.

    Raises:
        InputError: options that do not fit.
    """
    if args.data:
        raise InputError("digits are learnt from the embedded ones; --data is not read")
    run = Run.open(run_path) if args.resume else None
    model = args.model or (run.config["model"] if run else "cnn")
    if run is not None and run.config["model"] != model:
        raise InputError(f"{run_path} was begun as {run.config['model']}, not as {model}; resume it without --model")
    machines = _pretrain_options(args, model, run)
    options = train_options(args, recipe(model))
    parts = {name: embedded_digits(name) for name in ("train", "val")}
    config = dict(run.config) if run else _config(args, model, machines, options, parts)
    start = time.monotonic()
    torch.manual_seed(options.seed)
    classifier = classifier_of(config)
    if run is None:
        run = Run.create(run_path, config)
    if isinstance(classifier, DeepBeliefNet) and not run.last.exists():
        history = pretrain_machines(classifier, parts["train"], parts["val"], machines, options.seed)
        write_atomically(run.path / PRETRAINING, _as_csv(history))
    columns = {name: Samples({"image": part.pixels, "label": part.labels}) for name, part in parts.items()}
    module = TaskModule(classifier, DigitLearning(smoothing=SMOOTHING[model]), prepare=PrepareInk())
    result = fit(module, columns["train"], columns["val"], run, options)
    best = result.history[result.best_epoch - 1]
    return {
        "model": model,
        "metric": "accuracy",
        "best": best["accuracy"],
        "nats": result.best,
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "seconds": round(time.monotonic() - start, 1),
    }


def classifier_of(config: Mapping[str, Any]) -> nn.Module:
    """The network that a run's configuration describes, with weights from chance.

    Raises:
        InputError: a model that this version does not have.
    """
    model = config["model"]
    if model == "softmax":
        return SoftmaxClassifier()
    if model == "cnn":
        return ConvolutionalClassifier(config["dropout"])
    if model == "dbn":
        return DeepBeliefNet(config["hidden"], config["dropout"])
    raise InputError(f"unknown model {model!r}; there is softmax, cnn, dbn")


def pretrain_machines(
    net: DeepBeliefNet, train: Digits, held_out: Digits, machines: PretrainOptions, seed: int
) -> list[dict[str, float]]:
    """Trains the machines of a deep belief net greedily, from below, and starts its way up from them.

    The last one sees its layer's activity beside the label, one-hot. They learn the pictures as they are: with shifts,
    which blur them, what they learnt read fewer of the validation digits (.94 against .96 before fine-tuning).

    Returns:
        The rows of `pretrain`, with the number of the ``layer`` from 1.
    """
    prepare = Ink()
    history: list[dict[str, float]] = []
    for number, machine in enumerate(net.layers):
        generator = Generator().manual_seed(derived_seed(seed, number, 3))

        def seen(part: Digits, number: int = number, told: bool = machine.classes > 0) -> Tensor:
            activity = net.activity(prepare(torch.from_numpy(part.pixels)), number)
            labels = F.one_hot(torch.from_numpy(part.labels), CLASSES).float()
            return torch.cat([activity, labels], dim=1) if told else activity

        rows = pretrain(
            machine,
            seen(train),
            seen(held_out),
            machines,
            generator,
            f"of layer {number + 1}",
        )
        log.info("layer %d  reconstruction %.4f  held-out free energy %.1f nats", number + 1,
                 rows[-1]["reconstruction"], rows[-1]["held_out_free_energy"])  # fmt: skip
        history += [{"layer": float(number + 1), **row} for row in rows]
    net.unroll()
    return history


def _pretrain_options(args: Namespace, model: str, begun: Run | None) -> PretrainOptions:
    """As the command line says; of a run that is resumed, as it was begun.

    Raises:
        InputError: options that do not fit the model or the run.
    """
    given = {
        "--hidden": args.hidden,
        "--pretrain-epochs": args.pretrain_epochs,
        "--pretrain-lr": args.pretrain_lr,
        "--cd-steps": args.cd_steps,
        "--persistent": args.persistent or None,
    }
    used = [name for name, value in given.items() if value is not None]
    if used and model != "dbn":
        raise InputError(f"{used[0]} belongs to a deep belief net; add --model dbn")
    if args.hidden is not None and min(args.hidden) < 1:
        raise InputError(f"--hidden counts units, at least 1 in each layer; found {' '.join(map(str, args.hidden))}")
    default = PretrainOptions()
    if begun is not None and model == "dbn":
        config, names = begun.config, ("epochs", "lr", "steps", "persistent")
        was = dict(zip(given, [config["hidden"], *(config["pretraining"][name] for name in names)], strict=True))
        for option in used:
            if given[option] != was[option]:
                raise InputError(f"{begun.path} was begun with {option} {was[option]}; resume it without {option}")
        default = PretrainOptions(**config["pretraining"], sampled=config["pretraining"]["persistent"])
    persistent = args.persistent or default.persistent
    return PretrainOptions(
        epochs=default.epochs if args.pretrain_epochs is None else args.pretrain_epochs,
        lr=default.lr if args.pretrain_lr is None else args.pretrain_lr,
        steps=default.steps if args.cd_steps is None else args.cd_steps,
        persistent=persistent,
        sampled=persistent,
    )


def _config(
    args: Namespace, model: str, machines: PretrainOptions, options: TrainOptions, parts: Mapping[str, Digits]
) -> dict[str, Any]:
    """Everything needed to build the network again and to say where it came from."""
    belief = {
        "hidden": list(args.hidden or HIDDEN),
        "pretraining": {
            "epochs": machines.epochs,
            "lr": machines.lr,
            "steps": machines.steps,
            "persistent": machines.persistent,
        },
    }
    return {
        "task": "digits",
        "model": model,
        "dropout": DROPOUT[model],
        **(belief if model == "dbn" else {}),
        "weights": [],
        "license": "Apache-2.0",
        "data": {"name": NAME, "n": sum(map(len, parts.values())), "skipped": {}, "notes": []},
        "seed": options.seed,
        "lr": options.lr,
        "epochs": options.epochs,
        "optimiser": options.optimiser,
    }


def _as_csv(rows: Sequence[Mapping[str, float]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in rows)
    return text.getvalue().encode()
