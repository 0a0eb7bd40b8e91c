"""Age prediction: faces with their ages in, an age network behind its detector out."""

from __future__ import annotations

import logging
import tempfile
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedl.data.unreadable import MAX_SHARE, OPTION, Unreadable
from edgedl.tasks.base import Task, refuse_options

if TYPE_CHECKING:
    from edgedl.data.samples import FaceDataset
    from edgedl.tasks.base import AnyPath
    from exporters.quantize.judge import AnyJudge
    from runtime.bundle import Bundle

log = logging.getLogger(__name__)


class AgeTask(Task):
    """See `edgedl.tasks.base.Task`."""

    name = "age"

    def add_train_arguments(self, parser: ArgumentParser) -> None:
        """Declares what is particular to ages, and the training options."""
        from edgedl.data.synthetic_faces import EMBEDDED_FACES
        from edgedl.tasks.age.config import DEFAULTS, NETWORKS, OBJECTIVES, SIZES, ObjectiveSettings, recipes
        from edgedl.training.arguments import add_training_arguments, default

        def told(name: str) -> str:
            return default({choice: values[name] for choice, values in DEFAULTS.items()})

        least = ObjectiveSettings()
        group = parser.add_argument_group("age")
        group.add_argument("--network", choices=NETWORKS, help=f"the layers in front of the classes {told('network')}")
        group.add_argument(
            "--from-nothing", action="store_true", help="start from chance instead of from the public weights"
        )
        sizes = ", ".join(f"{size} of {name}" for name, size in SIZES.items())
        group.add_argument(
            "--size", type=int, metavar="PIXELS", help=f"side that the network looks at (default: {sizes})"
        )
        group.add_argument("--objective", choices=OBJECTIVES, help=f"what is minimised (default: {least.name})")
        group.add_argument(
            "--sigma",
            type=float,
            metavar="YEARS",
            help=f"of the label distributions of dldl (default: {least.sigma:g})",
        )
        group.add_argument(
            "--expectation-weight",
            type=float,
            metavar="X",
            help=f"weight of |E - age| (default: {least.expectation_weight:g})",
        )
        group.add_argument(
            "--dropout", type=float, metavar="SHARE", help=f"of the features, while training {told('dropout')}"
        )
        group.add_argument(
            "--calibration",
            type=float,
            metavar="SHARE",
            help="of the training faces that calibrate the interval and are not learnt from; 0 leaves it uncalibrated "
            f"{told('calibration')}",
        )
        group.add_argument("--format", metavar="F", help="of --data (default: told by its contents)")
        group.add_argument(
            OPTION,
            type=float,
            default=MAX_SHARE,
            metavar="SHARE",
            help=f"of the files of --data that may be left out because they cannot be read (default: {MAX_SHARE:g})",
        )
        group.add_argument(
            "--faces", type=int, metavar="N", help=f"how many embedded faces to draw (default: {EMBEDDED_FACES})"
        )
        group.add_argument(
            "--cache",
            action=BooleanOptionalAction,
            default=True,
            help="keep the cropped faces in the user's cache (default: on)",
        )
        add_training_arguments(parser, recipes(), augmented=True)

    def learn(self, args: Namespace, run_path: Path) -> dict[str, Any]:
        """Trains on --data, or on the embedded synthetic faces."""
        from edgedl.tasks.age.training import train_age

        return train_age(args, run_path)

    def export(self, run_path: AnyPath, path: AnyPath, **options: Any) -> Bundle:
        """Takes the best network of a run, with the detector, through the gate into a bundle."""
        from edgedl.tasks.age.bundle import age_bundle
        from edgedl.tasks.age.config import AgeConfig
        from edgedl.tasks.age.public import proven_detectors
        from edgedl.tasks.age.training import trained_network, weights_of
        from edgedl.training.run import Run
        from runtime.faces import crop_from_json
        from runtime.intervals import parse_interval

        refuse_options(options, ("name", "untrained", "one_graph"), "an age run is exported")
        run = Run.open(run_path)
        config = AgeConfig.of(run)

        def made(at: AnyPath) -> Bundle:
            return age_bundle(
                at,
                trained_network(run),
                crop_from_json(config.crop),
                detectors=proven_detectors(),
                name=options.get("name", "age"),
                version="1.0.0",
                description=f"Ages of the faces in a photo; {config.network} trained on {config.data['name']}",
                license=config.license,
                weights=weights_of(config),
                provenance={"data": config.data, "seed": config.seed, "run": run.created},
                untrained=bool(options.get("untrained", False)),
                interval=None if config.interval is None else parse_interval(config.interval, "config.json: interval"),
            )

        if not options.get("one_graph"):
            return made(path)
        from edgedl.tasks.age.photo.model import write_with_photo

        with tempfile.TemporaryDirectory() as folder:
            return write_with_photo(made(Path(folder) / "age.edge"), path)

    def pull(self, path: AnyPath, **options: Any) -> Bundle:
        """Makes a bundle of the CC0 age predictor and the public detector."""
        from edgedl.tasks.age.public import copy_public_bundle

        refuse_options(options, ("one_graph",), "age is pulled")
        if not options.get("one_graph"):
            return copy_public_bundle(path)
        from edgedl.tasks.age.photo.model import write_with_photo
        from edgedl.tasks.age.public import public_bundle

        return write_with_photo(public_bundle(), path)

    def judge(self, data: AnyPath | None, format: str | None, most: int | None) -> AnyJudge:  # noqa: A002
        """The MAE of the whole pipeline, without data on painted faces."""
        from edgedl.tasks.age.evaluation import judge_ages

        return judge_ages(self._faces(data, format), most)

    def calibrate(self, bundle: AnyPath, data: AnyPath, split: str | None, **options: Any) -> Mapping[str, Any]:
        """Calibrates the interval on faces of known age that training has not seen, by default the validation split."""
        from edgedl.tasks.age.calibration import calibrate_bundle

        known = ("level", "output", "device", "threads", "format", "max_unreadable")
        refuse_options(options, known, "an age bundle is calibrated")
        dataset = self._faces(data, options.pop("format", None))
        chosen = split or "val"
        unreadable = Unreadable(dataset.name, len(dataset.split(chosen)), options.pop("max_unreadable", MAX_SHARE))
        made = calibrate_bundle(bundle, dataset, chosen, unreadable=unreadable, **options)
        return {**made.to_json(), "skipped": dict(dataset.skipped), "unreadable": unreadable.to_json()}

    def _faces(self, data: AnyPath | None, format: str | None) -> FaceDataset:  # noqa: A002
        from edgedl.data.synthetic_faces import EMBEDDED_FACES, SyntheticFaces
        from edgedl.tasks.age.data.formats import open_faces

        if data is None:
            return SyntheticFaces(n=EMBEDDED_FACES)
        dataset = open_faces(data, format)
        log.info("%s", dataset.summary())
        return dataset

    def evaluate(
        self, bundle: AnyPath, data: AnyPath | None, split: str | None, device: str, threads: int | None, **options: Any
    ) -> Mapping[str, Any]:
        """Judges a bundle on faces of known age, without data on painted ones, see `evaluate_ages`."""
        from edgedl.data.spreading import Elsewhere
        from edgedl.tasks.age.evaluation import check_attributes, evaluate_ages
        from runtime.pipelines.age import AgePipeline

        known = ("aligned", "variant", "format", "max_unreadable", "against", "by", "stability", "spread")
        refuse_options(options, known, "an age bundle is evaluated")
        dataset = self._faces(data, options.get("format"))
        part = dataset.split(split or ("val" if data is None else "all"))
        by = tuple(options.get("by", ()))
        check_attributes(part, by)  # before minutes of work
        unreadable = Unreadable(dataset.name, len(part), options.get("max_unreadable", MAX_SHARE))
        # The pictures run side by side, so each model gets one thread unless more were asked for.
        opened = partial(AgePipeline.open, device=device, threads=threads or 1, variant=options.get("variant"))
        other, spread = options.get("against"), options.get("spread")
        with opened(bundle) as pipeline, nullcontext() if other is None else opened(other) as against:
            result = evaluate_ages(
                pipeline,
                part,
                aligned=bool(options.get("aligned")),
                unreadable=unreadable,
                by=by,
                against=against,
                stability=bool(options.get("stability")),
                elsewhere=None if spread is None else Elsewhere(spread, opened),
            )
        return {**result, "skipped": dict(dataset.skipped), "unreadable": unreadable.to_json()}


TASK = AgeTask()
