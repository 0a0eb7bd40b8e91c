"""The model ``photo`` of an age bundle: its graph, held against the pipeline by a criterion of its own.

The networks inside were proven before. What is new in this graph is everything between them, and the pipeline is what
that has to equal: the same faces in the same order, their boxes, keypoints and ages.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from edgedl.data import synthetic_faces
from edgedl.data.portrait import portrait
from edgedl.tasks.age.bundle import AGE_OUTPUTS, FACES_OUTPUTS, IMAGE_INPUT, photo_cases
from edgedl.tasks.age.photo.graph import photo_graph
from exporters.assemble import FIRST, ExportedModel, ExportedVariant, assemble
from exporters.errors import ParityError
from exporters.explain import record_trace
from exporters.graphs import operators
from exporters.parity import ParityReport, Tolerance, hold
from exporters.spec import Case, Output, Signature
from runtime.bundle import Bundle
from runtime.errors import BundleError
from runtime.faces import cut, fitted
from runtime.golden import GoldenCase
from runtime.manifest import DimensionSpec, OutputParity
from runtime.pipelines.age import AgePipeline, AgeSettings, Face
from runtime.rewriting import rewritten, write_rewritten

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]

NAME = "photo"
REFERENCE = "runtime.pipelines.age"

TOLERANCES = {
    "boxes": 0.1,
    "scores": 0.001,
    "keypoints": 0.1,
    "ages": 0.1,
    "low": 2.0,
    "high": 2.0,
    "probabilities": 0.02,
}
"""In pixels of the photo, years and shares. A rounded age may differ where it lies within 0.1 of a half.

OpenCV turns a face in float32 and rounds to levels. So one pixel in ten thousand is a level off, which moves an age by
0.05 years at most, and by a year the tenths of a distribution that is flat there.
"""


def photo_outputs(years: int) -> tuple[Output, ...]:
    """What the graph gives: the detector's answers in pixels of the photo, and those of the age network."""
    age, *others = AGE_OUTPUTS
    ages = (replace(age, name="ages"), *others, Output("probabilities", "float32", ("N", years)))
    return (
        *FACES_OUTPUTS,
        *(replace(output, shape=("D", *output.shape[1:])) for output in ages),
    )


def with_photo(bundle: Bundle) -> Bundle:
    """An age bundle with the model ``photo``, made of its others, in memory.

    Raises:
        BundleError: it has not the models and settings of an age bundle.
        GuardError: they are not as this version of edgedl makes them.
        ParityError: the graph answers otherwise than the pipeline.
    """
    manifest = bundle.manifest
    with tempfile.TemporaryDirectory() as folder:
        models = {NAME: photo_model(bundle)}
        alone = assemble(
            Path(folder) / "photo.edge", name=manifest.name, task=manifest.task, version=manifest.version, models=models
        )
        files = {file: alone.read(file) for file in alone.files if file.startswith(f"{NAME}.")}
        made = replace(manifest, models={**manifest.models, NAME: alone.model(NAME)})
    return rewritten(bundle, made, files)


def write_with_photo(bundle: Bundle, path: str | PathLike[str]) -> Bundle:
    """Writes an age bundle with the model ``photo``, see `with_photo`, atomically."""
    return write_rewritten(bundle, with_photo(bundle), path, "another model")


def photo_model(bundle: Bundle) -> ExportedModel:
    """Composes the graph and holds it against the pipeline.

    Raises:
        BundleError: the bundle has not the models and settings of an age bundle.
        GuardError: they are not as this version makes them.
        ParityError: the graph answers otherwise than the pipeline; the message names the output and the photo.
    """
    settings = AgeSettings.from_json(bundle.manifest.pipeline)
    missing = [name for name in ("faces", "crowd", "age") if name not in bundle.manifest.models]
    if missing:
        raise BundleError(f"{bundle.path} has no model {', '.join(missing)}; one graph is made of faces, crowd and age")
    faces, crowd, age = (onnx.load_from_string(bundle.graph(name)) for name in ("faces", "crowd", "age"))
    model = photo_graph(faces, crowd, age, settings)
    graph: bytes = model.SerializeToString(deterministic=True)
    cases = telling_photos()
    with AgePipeline(bundle, threads=1) as pipeline:
        golden = [GoldenCase(case.name, dict(case.inputs), pipeline_answers(pipeline, case)) for case in cases]
    outputs = photo_outputs(len(settings.years))
    report = hold_photo(model, graph, outputs, golden)
    if not report:
        raise ParityError(str(report))
    log.info("%s", report)
    spec = Signature((IMAGE_INPUT,), outputs).spec({side: DimensionSpec(min=1) for side in ("H", "W")}, cases)
    return ExportedModel(
        variants={FIRST: ExportedVariant(graph)},
        inputs=spec.inputs,
        outputs=spec.outputs,
        state=(),
        dimensions=spec.dimensions,
        golden=tuple(golden),
        parity=report.parity(),
        trace=record_trace(graph, next(case for case in cases if case.name == "far away"), {}),
        report=report,
        examples="real",
    )


def hold_photo(
    model: onnx.ModelProto, graph: bytes, outputs: tuple[Output, ...], golden: list[GoldenCase]
) -> ParityReport:
    """What the criterion says of a graph: see `TOLERANCES`."""
    tolerances = {
        output.name: Tolerance(OutputParity(TOLERANCES[output.name], 0.0, decision=output.decision))
        for output in outputs
    }
    cases = [Case(case.name, dict(case.inputs)) for case in golden]
    verdict = hold(graph, outputs, cases, [dict(case.outputs) for case in golden], tolerances)
    return ParityReport(
        checks=verdict.checks,
        tolerances=tolerances,
        cases=len(cases),
        failures=verdict.failures,
        operators=operators(model),
        opset=model.opset_import[0].version,
        ir_version=model.ir_version,
        reference=REFERENCE,
    )


def pipeline_answers(pipeline: AgePipeline, case: Case) -> dict[str, NDArray[np.float32]]:
    """What the pipeline answers, as the graph does."""
    return arrays_of(pipeline.faces(case.inputs["image"]), len(pipeline.settings.years))


def arrays_of(faces: list[Face], years: int) -> dict[str, NDArray[np.float32]]:
    """Faces as the outputs of the graph."""
    count = len(faces)

    def stacked(values: list[object], *shape: int) -> NDArray[np.float32]:
        return np.array(values, np.float32).reshape(count, *shape)

    return {
        "boxes": stacked([face.box for face in faces], 4),
        "scores": stacked([face.score for face in faces]),
        "keypoints": stacked([face.keypoints for face in faces], 6, 2),
        "ages": stacked([face.age for face in faces]),
        "low": stacked([face.low for face in faces]),
        "high": stacked([face.high for face in faces]),
        "probabilities": stacked([face.probabilities for face in faces], years),
    }


def telling_photos() -> list[Case]:
    """Photos that together need every step: each look, each kind of close-up, borders, odd sizes, and no face.

    Painted faces and a public-domain portrait only: they travel with the bundle.
    """
    hopper = portrait()
    own = {case.name: case.inputs["image"] for case in photo_cases()}
    drawn, _, _ = synthetic_faces.scene(seed=3, faces=4, size=301)
    pictures = {
        **{
            name: own[name]
            for name in ("portrait", "far away", "tight", "cut off", "small", "a line", "noise", "black")
        },
        "one pixel": own["one pixel"],
        "framed": cut(hopper, 180, 120, 320, 260),
        "at the corner": hopper[170:, 170:][: 16 * 19 + 5, : 16 * 15 + 3],
        "eleven people": _people(11, 190, 4),
        "crowd": _people(44, 58, 8),
        "drawn": drawn,
    }
    return [Case(name, {"image": np.ascontiguousarray(picture)}) for name, picture in pictures.items()]


def _people(number: int, side: int, across: int) -> Pixels:
    """So many portraits side by side, each of another size, in another light, every other one mirrored."""
    hopper = portrait()[40:520]
    rows = -(-number // across)
    photo = np.full((rows * side * 5 // 4 + 7, across * side * 9 // 8 + 5, 3), 90, np.uint8)
    for place in range(number):
        light = np.arange(256, dtype=np.uint16) * (100 - 2 * (place % 17)) // 100
        person = light.astype(np.uint8)[fitted(hopper, side - (place * 7) % (side // 3))]
        person = person[:, :: -1 if place % 2 else 1]
        row, column = divmod(place, across)
        y, x = row * side * 5 // 4 + place % 5, column * side * 9 // 8 + place % 3
        photo[y : y + person.shape[0], x : x + person.shape[1]] = person
    return photo
