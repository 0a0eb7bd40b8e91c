"""Stochastic gradient descent to look at: two weights, a cost that is a surface, and the paths of the methods on it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedl.tasks.base import Task, refuse_options

if TYPE_CHECKING:
    from edgedl.tasks.base import AnyPath
    from runtime.bundle import Bundle


class SgdTask(Task):
    """See `edgedl.tasks.base.Task`."""

    name = "sgd"
    takes = "seconds"
    resumes = False

    def add_train_arguments(self, parser: ArgumentParser) -> None:
        """Declares which methods are compared, and the training options, which then hold for each of them."""
        from edgedl.tasks.sgd.methods import METHODS
        from edgedl.training.arguments import add_training_arguments, default

        group = parser.add_argument_group("sgd", "training options that are given hold for every method")
        group.add_argument(
            "--method", nargs="+", choices=list(METHODS), metavar="NAME", help=f"{', '.join(METHODS)} (default: all)"
        )
        shares = default({name: method.dropout for name, method in METHODS.items()})
        group.add_argument("--dropout", type=float, metavar="SHARE", help=f"of the readings, while training {shares}")
        add_training_arguments(parser, {name: method.recipe for name, method in METHODS.items()})

    def learn(self, args: Namespace, run_path: Path) -> dict[str, Any]:
        """Descends by every method on --data, or on the embedded strain gauges."""
        from edgedl.tasks.sgd.plot import plot_paths
        from edgedl.tasks.sgd.training import train_sgd

        result = train_sgd(args, run_path)
        plot_paths(run_path, None)
        return result

    def export(self, run_path: AnyPath, path: AnyPath, **options: Any) -> Bundle:
        """Takes the best network of a run through the gate into a bundle: readings in millivolt in, newton out."""
        from edgedl.tasks.comparison import Comparison
        from edgedl.tasks.sgd.config import SgdConfig, license_of
        from edgedl.tasks.sgd.training import trained_network
        from edgedl.training.run import Run
        from exporters.export import export
        from exporters.spec import Input, Output

        refuse_options(options, ("name", "untrained"), "a run of sgd is exported")
        run = Run.open(run_path)
        config = Comparison.of(run, SgdConfig, single=True).first
        return export(
            trained_network(run),
            path,
            name=options.get("name", "sgd"),
            task="sgd",
            inputs=[Input("gauges", "float32", ("N", 2), meaning="two strain gauges", unit="mV", limits=(-3.0, 3.0))],
            outputs=[Output("force", "float32", ("N",), unit="N", meaning="force on the beam")],
            version="1.0.0",
            description=f"A force from two strain gauges; two weights learnt on {config.data['name']}",
            license=license_of(config.data["name"]),
            provenance={"data": config.data, "seed": config.seed, "run": run.created},
            untrained=bool(options.get("untrained", False)),
        )

    def evaluate(
        self, bundle: AnyPath, data: AnyPath | None, split: str | None, device: str, threads: int | None, **options: Any
    ) -> Mapping[str, Any]:
        """Judges a bundle on a table of readings, without one on the embedded ones: MSE in N², R²."""
        from edgedl.tasks.sgd.data import embedded_readings, read_readings
        from edgedl.tasks.sgd.evaluation import evaluate_forces
        from runtime.pipelines.tensors import TensorPipeline

        refuse_options(options, ("variant",), "a bundle of sgd is evaluated")
        part = embedded_readings(split or "val") if data is None else read_readings(data, split or "all")
        with TensorPipeline.open(bundle, device=device, threads=threads, variant=options.get("variant")) as pipeline:
            return evaluate_forces(pipeline, part)

    def plot(self, path: AnyPath, output: AnyPath | None, *, clip: str | None = None) -> list[Path]:
        """Draws the cost surface with the paths on it, and the cost against updates and samples."""
        from edgedl.tasks.sgd.plot import plot_paths

        self.refuse_clip(clip)
        return [plot_paths(path, output)]


TASK = SgdTask()
