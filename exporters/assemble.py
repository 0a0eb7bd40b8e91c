"""Proven models -> one bundle, with the digests, the provenance and each graph stamped with what it belongs to."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporters.errors import ExportError
from exporters.graphs import stamp
from exporters.parity import ParityReport
from exporters.provenance import provenance as fill_provenance
from runtime.bundle import Bundle, write_bundle
from runtime.errors import BundleError
from runtime.golden import GoldenCase, golden_to_npz
from runtime.manifest import (
    SCHEMA_VERSION,
    DimensionSpec,
    FileRef,
    GoldenRef,
    Manifest,
    ModelSpec,
    Parity,
    StateSpec,
    TensorSpec,
    Variant,
)

FIRST = "fp32"
"""The variant that an export makes; others are made from it."""


@dataclass(frozen=True, slots=True)
class ExportedVariant:
    """One form of a model's graph.

    Attributes:
        graph: The ONNX file; `assemble` stamps it with the bundle's name.
        parity: Tolerances of its own; None takes those of the model.
        error: What the form costs, where it does not hold the model's tolerances.
    """

    graph: bytes
    parity: Parity | None = None
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """A graph that passed its gate, in one or more variants, with everything that a bundle records of it.

    Attributes:
        variants: By name; the first is the one that the parity, the answers and the trace were measured on.
        inputs: The signature.
        outputs: The signature.
        state: Carried states of a recurrent model.
        dimensions: The sizes that named dimensions may have.
        golden: Recorded cases with the answers of torch in float64.
        parity: The tolerances and what they were measured from.
        trace: One number pair per value of the first variant's graph, see `exporters.explain`.
        report: What the gate found, for people.
        examples: Whether ``real`` inputs or ``generated`` ones were held against the reference.
    """

    variants: Mapping[str, ExportedVariant]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    state: tuple[StateSpec, ...]
    dimensions: Mapping[str, DimensionSpec]
    golden: tuple[GoldenCase, ...]
    parity: Parity
    trace: bytes
    report: ParityReport
    examples: str | None = None

    @property
    def graph(self) -> bytes:
        """The ONNX file of the first variant."""
        return next(iter(self.variants.values())).graph


def assemble(
    path: str | os.PathLike[str],
    *,
    name: str,
    task: str,
    models: Mapping[str, ExportedModel],
    version: str = "1.0.0",
    license: str = "",  # noqa: A002 - the manifest's own word
    description: str = "",
    pipeline: Mapping[str, Any] | None = None,
    files: Mapping[str, tuple[str, bytes]] | None = None,
    metrics: Sequence[Mapping[str, Any]] = (),
    provenance: Mapping[str, Any] | None = None,
) -> Bundle:
    """Writes proven models as one bundle, atomically.

    Args:
        path: The folder to write; a bundle that is there is replaced.
        name: Of the bundle.
        task: What it is for.
        models: By name; the name becomes the file's.
        version: Of the bundle.
        license: SPDX identifier of the weights.
        description: One sentence.
        pipeline: The task's settings outside the graph.
        files: More files: key -> file name and content.
        metrics: What was measured of it.
        provenance: ``seed``, ``data``, ``weights``; versions and the revision are filled in.

    Raises:
        BundleError: Something that is no bundle is at the path, or a name is no file name.
    """
    if not models:
        raise ExportError("a bundle needs at least one model")
    contents: dict[str, bytes] = {}
    specs: dict[str, ModelSpec] = {}
    properties = {"bundle": name, "version": version, "task": task, "schema_version": str(SCHEMA_VERSION)}
    for key, model in models.items():
        graphs = {
            name: (
                f"{key}.{name}.onnx" if position else f"{key}.onnx",
                stamp(variant.graph, {**properties, "model": key}),
            )
            for position, (name, variant) in enumerate(model.variants.items())
        }
        parts = {
            **dict(graphs.values()),
            f"{key}.golden.npz": golden_to_npz(model.golden),
            f"{key}.trace.npz": model.trace,
        }
        contents |= parts
        digests = {file: hashlib.sha256(data).hexdigest() for file, data in parts.items()}
        golden = f"{key}.golden.npz"
        specs[key] = ModelSpec(
            variants={
                name: Variant(file, digests[file], len(graph), model.variants[name].error, model.variants[name].parity)
                for name, (file, graph) in graphs.items()
            },
            inputs=model.inputs,
            outputs=model.outputs,
            state=model.state,
            dimensions=model.dimensions,
            examples=model.examples,
            golden=GoldenRef(golden, digests[golden], len(model.golden)),
            parity=model.parity,
            trace=FileRef(f"{key}.trace.npz", digests[f"{key}.trace.npz"]),
        )
    references: dict[str, FileRef] = {}
    for key, (file, data) in (files or {}).items():
        if file in contents:
            raise ExportError(f"the file {file} of {key!r} has the name of another file of the bundle")
        contents[file] = data
        references[key] = FileRef(file, hashlib.sha256(data).hexdigest())
    reports = {key: model.report for key, model in models.items()}
    known = dict(provenance or {})
    untrained = [key for key, report in reports.items() if report.untrained and report.vacuous]
    if untrained:
        known["untrained"] = untrained
    manifest = Manifest(
        name=name,
        version=version,
        task=task,
        license=license,
        description=description,
        models=specs,
        pipeline=dict(pipeline or {}),
        files=references,
        metrics=tuple(metrics),
        provenance=fill_provenance(
            known,
            opset=max(report.opset for report in reports.values()),
            ir_version=max(report.ir_version for report in reports.values()),
        ),
    )
    return write_bundle(path, manifest, contents)


def reuse(bundle: Bundle, name: str) -> ExportedModel:
    """A model of a bundle that was proven before, with its recorded answers, to go into another bundle.

    The bundle's hashes stand for the proof; nothing is proven anew.

    Raises:
        BundleError: the bundle is damaged, or the model lacks its proof.
    """
    spec = bundle.model(name)
    if spec.parity is None or spec.trace is None:
        raise BundleError(f"{bundle.path}: the model {name} has no recorded proof and cannot be reused")
    made = bundle.manifest.provenance
    return ExportedModel(
        variants={
            key: ExportedVariant(bundle.graph(name, key), variant.parity, variant.error)
            for key, variant in spec.variants.items()
        },
        inputs=spec.inputs,
        outputs=spec.outputs,
        state=spec.state,
        dimensions=spec.dimensions,
        examples=spec.examples,
        golden=bundle.golden(name),
        parity=spec.parity,
        trace=bundle.read(spec.trace.file),
        report=ParityReport(
            checks=(),
            tolerances={},
            cases=spec.golden.cases if spec.golden else 0,
            opset=int(made.get("opset", 0)),
            ir_version=int(made.get("ir_version", 0)),
            notes=(f"proven before, as a part of {bundle.manifest.name} {bundle.manifest.version}",),
        ),
    )
