"""A bundle's manifest as text for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from edgedl.cli.matrix import matrix
from edgedl.cli.output import number, size, table

if TYPE_CHECKING:
    from runtime.bundle import Bundle
    from runtime.manifest import Manifest, ModelSpec, TensorSpec, Variant
    from runtime.signatures import Signer


def summary(bundle: Bundle) -> str:
    """One line: where, what, how large, under which licence."""
    manifest = bundle.manifest
    total = sum(variant.bytes for model in manifest.models.values() for variant in model.variants.values())
    return (
        f"{bundle.path}: {manifest.name} {manifest.version}, task {manifest.task}, "
        f"{', '.join(manifest.models)}, {size(total)} of graphs, {manifest.license}"
    )


def description(bundle: Bundle, signer: Signer | None = None) -> str:
    """Everything of the manifest that a person asks for, models first; who signed it, if that was checked."""
    manifest = bundle.manifest
    parts = [summary(bundle), "\n".join([f"digest {bundle.digest}", *_signatures(bundle, signer)])]
    if manifest.description:
        parts.append(manifest.description)
    parts += [_model(name, model) for name, model in manifest.models.items()]
    parts += [part for part in (_metrics(manifest), matrix(bundle), _provenance(manifest)) if part]
    if manifest.pipeline:
        parts.append("outside the graph\n" + _pairs(manifest.pipeline))
    return "\n\n".join(parts)


def _signatures(bundle: Bundle, signer: Signer | None) -> list[str]:
    from runtime.signatures import claims

    if signer:
        return [f"signed by {signer}, {signer.file}: {signer.comment.replace(chr(9), ' ')}"]
    return [f"{claim.file} by the key {claim.key or '?'}, not checked (--trust KEYS)" for claim in claims(bundle)]


def _model(name: str, model: ModelSpec) -> str:
    cases = f"{model.golden.cases} recorded answers" if model.golden else "no recorded answers"
    lines = [f"model {name}, {cases}"]
    variants = [(key, variant.file, size(variant.bytes), _cost(variant)) for key, variant in model.variants.items()]
    lines.append(table(("variant", "graph", "size", "error"), variants, "  "))
    tensors = [_tensor("in", spec) for spec in model.inputs] + [_tensor("out", spec) for spec in model.outputs]
    lines.append(table(("", "tensor", "dtype", "shape", "unit", "meaning"), tensors, "  "))
    if model.dimensions:
        lines.append("  sizes: " + "; ".join(f"{name} {sizes}" for name, sizes in model.dimensions.items()))
    if model.state:
        states = [(s.output, s.input, s.dtype, _shape(s.shape), s.init) for s in model.state]
        lines.append(table(("state of", "feeds", "dtype", "shape", "starts as"), states, "  "))
    if model.parity:
        rows = [
            (output, p.atol, p.rtol, p.max_abs, p.noise, p.mutant, p.decision or "-")
            for output, p in model.parity.outputs.items()
        ]
        header = ("allowed for", "atol", "rtol", "seen at export", "float32 noise", "weakest mutant", "decision")
        lines.append(table(header, rows, "  "))
        lines.append(f"  {model.parity.criterion}, against {model.parity.reference}")
    if model.examples:
        lines.append(f"  held on {model.examples} inputs")
    return "\n".join(lines)


def _cost(variant: Variant) -> str:
    """What a form of a graph costs: nothing, what it declares, or its budget and the decisions that change."""
    budget = variant.budget
    if budget is None:
        return _short(variant.error)
    told = f"{budget.metric} {number(budget.value)} (fp32 {number(budget.fp32)}, {number(budget.allowed)} allowed)"
    changed = ", ".join(f"{share:.3g} on {kind}" for kind, share in budget.decisions_changed.items())
    return f"{told}; decisions changed: {changed or 'none counted'}"


def _tensor(direction: str, spec: TensorSpec) -> tuple[str, ...]:
    meaning = " ".join(filter(None, (spec.layout, spec.meaning)))
    return (direction, spec.name, spec.dtype, _shape(spec.shape), spec.unit or "-", meaning or "-")


def _shape(shape: Iterable[int | str]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _metrics(manifest: Manifest) -> str:
    rows = [
        tuple(entry.get(key, "-") for key in ("dataset", "split", "n", "metric", "value", "unit", "variant"))
        for entry in manifest.metrics
    ]
    return table(("measured on", "split", "n", "metric", "value", "unit", "variant"), rows) if rows else ""


def _provenance(manifest: Manifest) -> str:
    provenance = dict(manifest.provenance)
    weights = provenance.pop("weights", None) or []
    lines = ["made with", _pairs(provenance)] if provenance else []
    if weights:
        rows = [
            (entry.get("name", "-"), entry.get("license", "-"), str(entry.get("sha256", "-"))[:16]) for entry in weights
        ]
        lines.append(table(("weights", "licence", "sha256"), rows))
    return "\n".join(lines)


def _pairs(entries: Mapping[str, Any]) -> str:
    width = max(map(len, entries))
    return "\n".join(f"  {key.ljust(width)}  {_short(value)}" for key, value in entries.items())


def _short(value: Any) -> str:
    """A value in one short line; a long list by its ends."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        if len(value) > 8:
            return f"{number(value[0])}, {number(value[1])} … {number(value[-1])} ({len(value)} values)"
        return ", ".join(map(number, value))
    return number(value)
