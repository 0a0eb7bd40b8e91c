"""The matrix of a bundle's proofs, by target, variant and runtime, and whether the bundle may be released."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgedl.cli.output import number, table

if TYPE_CHECKING:
    from runtime.bundle import Bundle
    from runtime.proofs import Proof

HEADER = ("proven on", "variant", "onnxruntime", "accuracy", "worst error", "share", "decisions", "p50 ms", "date", "")


def matrix(bundle: Bundle) -> str:
    """The table for people; empty where there is neither a proof nor a demand for one."""
    from runtime.proofs import latest

    own = latest(proof for proof in bundle.proofs if proof.digest == bundle.digest)
    accuracy = _accuracy(bundle)
    parts = []
    if own:
        parts.append(table(HEADER, [_row(proof, accuracy) for proof in own]))
    others = len(bundle.proofs) - sum(proof.digest == bundle.digest for proof in bundle.proofs)
    if others:
        parts.append(f"{others} proofs of what the bundle was before, by its digest")
    told = told_release(bundle)
    return "\n".join([*parts, *([told] if told else [])])


def told_release(bundle: Bundle) -> str:
    """Whether the bundle may be released, in a sentence; empty where its manifest asks for nothing."""
    release = bundle.manifest.release
    if release is None:
        return ""
    missing = missing_proofs(bundle)
    asked = (
        f"released if proven on {', '.join(release.targets)} with errors of at most {release.share:g} of a tolerance"
    )
    if not missing:
        return f"{asked}: it may be released"
    reasons = "; ".join(f"{target} {variant}: {why}" for (target, variant), why in missing.items())
    return f"{asked}: it may not be released: {reasons}"


def missing_proofs(bundle: Bundle) -> Mapping[tuple[str, str], str]:
    """What stands in the way of a release, see `runtime.release.unproven`."""
    from runtime.release import unproven
    from runtime.verify import graphs_of

    if bundle.manifest.release is None:
        return {}
    variants = list(dict.fromkeys(variant for _, variant in graphs_of(bundle)))
    return unproven(bundle.manifest.release, bundle.digest, variants, bundle.proofs)


def release_document(bundle: Bundle) -> dict[str, Any] | None:
    """JSON-able values; None where the manifest asks for nothing."""
    release = bundle.manifest.release
    if release is None:
        return None
    missing = [{"target": t, "variant": v, "reason": why} for (t, v), why in missing_proofs(bundle).items()]
    return {"ok": not missing, "targets": release.targets, "share": release.share, "missing": missing}


def _row(proof: Proof, accuracy: Mapping[str, str]) -> tuple[Any, ...]:
    replayed = "" if proof.cases in (None, proof.recorded) else f" ({proof.cases} of {proof.recorded} cases)"
    return (
        proof.target + (", emulated" if proof.emulated else ""),
        proof.variant,
        proof.onnxruntime,
        accuracy.get(proof.variant, "-"),
        proof.max_abs,
        proof.share,
        "-" if proof.changed is None else f"{proof.changed} changed",
        proof.p50_ms,
        proof.date,
        ("ok" if proof.ok else "FAILED") + replayed,
    )


def _accuracy(bundle: Bundle) -> dict[str, str]:
    """The metric of each variant: what the manifest measured, of a variant with a budget what judged it."""
    found = {
        str(entry.get("variant", "fp32")): f"{entry['metric']} {number(entry['value'])}"
        for entry in reversed(bundle.manifest.metrics)
        if "metric" in entry and "value" in entry
    }
    for model in bundle.manifest.models.values():
        for name, variant in model.variants.items():
            if variant.budget is not None:
                found[name] = f"{variant.budget.metric} {number(variant.budget.value)}"
                found.setdefault("fp32", f"{variant.budget.metric} {number(variant.budget.fp32)}")
    return found
