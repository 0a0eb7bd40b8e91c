"""The manifest of a bundle: frozen dataclasses, parsed once at the edge and typed from there on.

``Manifest.from_json`` takes what ``json.loads`` gave and either returns a manifest that is right in every type,
name and digest, or raises ``BundleError`` with the place that is wrong, e.g. ``models.age.inputs[0].dtype``.
Unknown keys warn (``BundleWarning``): a newer edgedl may have written them. A newer ``schema_version`` refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runtime.errors import BundleError
from runtime.fields import BundleWarning as BundleWarning
from runtime.fields import (
    Fields,
    choice,
    digest,
    flat_name,
    free_object,
    integer,
    kind_of,
    mapping_of,
    number,
    text,
    truth,
    tuple_of,
)
from runtime.signature import DimensionSpec as DimensionSpec
from runtime.signature import StateSpec as StateSpec
from runtime.signature import TensorSpec as TensorSpec
from runtime.signature import (
    dimensions_json,
    parse_dimension,
    parse_state,
    parse_tensor,
    state_json,
    tensor_json,
)

if TYPE_CHECKING:
    from runtime.budget import Budget
    from runtime.release import Release

SCHEMA_VERSION = 1
CRITERION = "|a-b| <= atol + rtol*|b|"

DECISIONS = frozenset(("argmax", "round", "exact"))
EXAMPLES = frozenset(("real", "generated"))


@dataclass(frozen=True, slots=True)
class OutputParity:
    """The measured, two-sided tolerance of one output.

    ``noise`` is the float32 noise against float64, ``mutant`` the effect of the weakest mutant that must be caught,
    ``max_abs`` the worst error seen at export. ``decision`` (``argmax``, ``round`` or ``exact``) has to be equal
    wherever the float64 margin is larger than the tolerance. ``nan`` says that the output may be NaN where the
    reference is.
    """

    atol: float
    rtol: float
    max_abs: float | None = None
    noise: float | None = None
    mutant: float | None = None
    decision: str | None = None
    nan: bool = False


@dataclass(frozen=True, slots=True)
class Parity:
    """What counts as the same answer, and against which reference."""

    criterion: str
    reference: str
    outputs: Mapping[str, OutputParity]


@dataclass(frozen=True, slots=True)
class Variant:
    """One form of a model's graph, e.g. ``fp32`` or ``int8``.

    ``error`` tells what the form costs. ``parity`` holds tolerances of its own; without it those of the model count.
    With a ``budget`` no tolerances count: the form gives other answers, and its decisions are counted.
    """

    file: str
    sha256: str
    bytes: int
    error: Mapping[str, Any] | None = None
    parity: Parity | None = None
    budget: Budget | None = None


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file of the bundle and its digest."""

    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class GoldenRef:
    """The recorded answers of a model: an npz file of ``cases`` cases."""

    file: str
    sha256: str
    cases: int


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model of a bundle: its graph in one or more variants, its signature and its recorded answers.

    ``dimensions`` has the sizes that named dimensions may have. Of a name without an entry the engine takes every size
    but 0, and 0 as well where it is the batch, see `runtime.checks`. ``examples`` says whether ``real`` inputs or
    ``generated`` ones were held against the reference; None where a bundle is older than this.
    """

    variants: Mapping[str, Variant]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    state: tuple[StateSpec, ...] = ()
    dimensions: Mapping[str, DimensionSpec] = field(default_factory=dict)
    golden: GoldenRef | None = None
    parity: Parity | None = None
    trace: FileRef | None = None
    examples: str | None = None

    def form(self, variant: str | None) -> str:
        """The variant that runs where this one is asked for: of a model that lacks it ``fp32``, else its first."""
        if variant is not None and variant in self.variants:
            return variant
        return "fp32" if "fp32" in self.variants else next(iter(self.variants))

    def parity_of(self, variant: str) -> Parity | None:
        """What counts as the same answer of a variant: its own tolerances, else the model's."""
        return self.variants[variant].parity or self.parity


@dataclass(frozen=True, slots=True)
class Manifest:
    """``manifest.json``: the only authority on what a bundle holds."""

    name: str
    version: str
    task: str
    license: str
    description: str
    models: Mapping[str, ModelSpec]
    pipeline: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileRef] = field(default_factory=dict)
    metrics: tuple[Mapping[str, Any], ...] = ()
    release: Release | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Manifest:
        """Parses what ``json.loads`` gave.

        Raises:
            BundleError: a key is missing or of the wrong type, a name or digest is malformed, two entries claim one
                file with different digests, or the schema is one that this edgedl does not know.
        """
        if not isinstance(data, Mapping):
            raise BundleError(f"manifest.json holds {kind_of(data)}, expected an object")
        version = data.get("schema_version")
        if type(version) is not int:
            raise BundleError(f"manifest.json: schema_version is {version!r}, expected the number {SCHEMA_VERSION}")
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"manifest.json: schema_version is {version}, this edgedl reads {SCHEMA_VERSION}; "
                f"{'update edgedl' if version > SCHEMA_VERSION else 'export the bundle again'}"
            )
        top = Fields(data, "")
        top.take("proofs", tuple_of(free_object), default=())  # always empty; proofs lie beside the manifest now
        manifest = cls(
            schema_version=top.take("schema_version", integer),
            name=top.take("name", flat_name),
            version=top.take("version", text),
            task=top.take("task", text),
            license=top.take("license", text, default=""),
            description=top.take("description", text, default=""),
            models=top.take("models", mapping_of(_model)),
            pipeline=top.take("pipeline", free_object, default={}),
            files=top.take("files", mapping_of(_file_ref), default={}),
            metrics=top.take("metrics", tuple_of(free_object), default=()),
            release=top.take("release", _release, default=None),
            provenance=top.take("provenance", free_object, default={}),
        )
        top.finish()
        if not manifest.models:
            raise BundleError("manifest.json: models is empty, expected at least one model")
        manifest.digests()
        return manifest

    def to_json(self) -> dict[str, Any]:
        """The JSON form; ``Manifest.from_json(m.to_json()) == m``. Keys that hold nothing are left out."""
        release = {"release": self.release.to_json()} if self.release else {}
        return {
            "schema_version": self.schema_version,
            "name": self.name,
            "version": self.version,
            "task": self.task,
            "license": self.license,
            "description": self.description,
            "models": {name: _model_json(model) for name, model in self.models.items()},
            "pipeline": dict(self.pipeline),
            "files": {key: {"file": ref.file, "sha256": ref.sha256} for key, ref in self.files.items()},
            "metrics": [dict(entry) for entry in self.metrics],
            **release,
            "provenance": dict(self.provenance),
        }

    def digests(self) -> dict[str, str]:
        """Every file that the manifest names, with its sha256.

        Raises:
            BundleError: one file is claimed with two digests.
        """
        claimed: dict[str, str] = {}
        for where, file, sha256 in self._claims():
            if claimed.setdefault(file, sha256) != sha256:
                raise BundleError(f"manifest.json: {where} gives {file} another sha256 than an entry before it")
        return claimed

    def _claims(self) -> list[tuple[str, str, str]]:
        claims = [(f"files.{key}", ref.file, ref.sha256) for key, ref in self.files.items()]
        for name, model in self.models.items():
            claims += [(f"models.{name}.variants.{key}", v.file, v.sha256) for key, v in model.variants.items()]
            for part, reference in (("golden", model.golden), ("trace", model.trace)):
                if reference is not None:
                    claims.append((f"models.{name}.{part}", reference.file, reference.sha256))
        return claims


def _release(value: Any, where: str) -> Release:
    from runtime.release import parse_release  # here, because a first answer begins quicker without

    return parse_release(value, where)


def _file_name(value: Any, where: str) -> str:
    if flat_name(value, f"manifest.json: {where}") == "manifest.json":
        raise BundleError(f"manifest.json: {where} names manifest.json itself")
    return value  # type: ignore[no-any-return]


def _variants(value: Any, where: str) -> Mapping[str, Variant]:
    return {key: _variant(key, item, f"{where}.{key}") for key, item in free_object(value, where).items()}


def _variant(name: str, value: Any, where: str) -> Variant:
    def budget(value: Any, where: str) -> Budget:
        from runtime.budget import parse_budget  # here, because a first answer begins quicker without

        return parse_budget(name)(value, where)

    part = Fields(value, where)
    variant = Variant(
        file=part.take("file", _file_name),
        sha256=part.take("sha256", digest),
        bytes=part.take("bytes", integer),
        error=part.take("error", free_object, default=None),
        parity=part.take("parity", _parity, default=None),
        budget=part.take("budget", budget, default=None),
    )
    part.finish()
    return variant


def _output_parity(value: Any, where: str) -> OutputParity:
    part = Fields(value, where)
    parity = OutputParity(
        atol=part.take("atol", number),
        rtol=part.take("rtol", number),
        max_abs=part.take("max_abs", number, default=None),
        noise=part.take("noise", number, default=None),
        mutant=part.take("mutant", number, default=None),
        decision=part.take("decision", choice(DECISIONS), default=None),
        nan=part.take("nan", truth, default=False),
    )
    part.finish()
    return parity


def _parity(value: Any, where: str) -> Parity:
    part = Fields(value, where)
    parity = Parity(
        # Another criterion than this one is not understood, and guessing would turn the proof into a claim.
        criterion=part.take("criterion", choice(frozenset((CRITERION,)))),
        reference=part.take("reference", text),
        outputs=part.take("outputs", mapping_of(_output_parity)),
    )
    part.finish()
    return parity


def _file_ref(value: Any, where: str) -> FileRef:
    part = Fields(value, where)
    reference = FileRef(file=part.take("file", _file_name), sha256=part.take("sha256", digest))
    part.finish()
    return reference


def _golden(value: Any, where: str) -> GoldenRef:
    part = Fields(value, where)
    reference = GoldenRef(
        file=part.take("file", _file_name),
        sha256=part.take("sha256", digest),
        cases=part.take("cases", integer),
    )
    part.finish()
    return reference


def _model(value: Any, where: str) -> ModelSpec:
    part = Fields(value, where)
    model = ModelSpec(
        variants=part.take("variants", _variants),
        inputs=part.take("inputs", tuple_of(parse_tensor)),
        outputs=part.take("outputs", tuple_of(parse_tensor)),
        state=part.take("state", tuple_of(parse_state), default=()),
        dimensions=part.take("dimensions", mapping_of(parse_dimension), default={}),
        examples=part.take("examples", choice(EXAMPLES), default=None),
        golden=part.take("golden", _golden, default=None),
        parity=part.take("parity", _parity, default=None),
        trace=part.take("trace", _file_ref, default=None),
    )
    part.finish()
    if not model.variants:
        raise BundleError(f"manifest.json: {where}.variants is empty, expected at least one graph")
    for kind, tensors in (("inputs", model.inputs), ("outputs", model.outputs)):
        names = [tensor.name for tensor in tensors]
        if len(set(names)) != len(names):
            raise BundleError(f"manifest.json: {where}.{kind} gives a name twice: {', '.join(names)}")
    named = {size for tensor in (*model.inputs, *model.outputs) for size in tensor.shape}
    unknown = sorted(model.dimensions.keys() - named)
    if unknown:
        raise BundleError(f"manifest.json: {where}.dimensions speaks of {', '.join(unknown)}, which no tensor has")
    outputs = {tensor.name for tensor in model.outputs}
    for parity in (model.parity, *(variant.parity for variant in model.variants.values())):
        if parity is not None and not set(parity.outputs) <= outputs:
            strangers = ", ".join(sorted(set(parity.outputs) - outputs))
            raise BundleError(f"manifest.json: {where}.parity speaks of {strangers}, which is no output of the model")
    return model


def _present(**entries: Any) -> dict[str, Any]:
    return {key: value for key, value in entries.items() if value is not None}


def _parity_json(parity: Parity) -> dict[str, Any]:
    return {
        "criterion": parity.criterion,
        "reference": parity.reference,
        "outputs": {
            name: _present(
                atol=p.atol,
                rtol=p.rtol,
                max_abs=p.max_abs,
                noise=p.noise,
                mutant=p.mutant,
                decision=p.decision,
                nan=p.nan or None,
            )
            for name, p in parity.outputs.items()
        },
    }


def _model_json(model: ModelSpec) -> dict[str, Any]:
    golden, parity, trace = model.golden, model.parity, model.trace
    return _present(
        variants={
            key: _present(
                file=v.file,
                sha256=v.sha256,
                bytes=v.bytes,
                error=v.error and dict(v.error),
                parity=v.parity and _parity_json(v.parity),
                budget=v.budget and v.budget.to_json(key),
            )
            for key, v in model.variants.items()
        },
        inputs=[tensor_json(spec) for spec in model.inputs],
        outputs=[tensor_json(spec) for spec in model.outputs],
        dimensions=dimensions_json(model.dimensions) or None,
        examples=model.examples,
        state=[state_json(spec) for spec in model.state],
        golden=golden and {"file": golden.file, "sha256": golden.sha256, "cases": golden.cases},
        parity=parity and _parity_json(parity),
        trace=trace and {"file": trace.file, "sha256": trace.sha256},
    )
