"""Proofs: where a bundle's recorded answers were replayed, and how it went.

They lie in ``proofs.json`` beside the manifest and outside the bundle's digest. Proving a bundle on one more target
changes neither its digest nor a signature of it. Each proof names the digest of the bundle that it speaks of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from runtime.errors import BundleError
from runtime.fields import Fields, digest, integer, number, text, truth, tuple_of
from runtime.sources import PROOFS as PROOFS

HERE = "here"
"""The target of a proof that a bundle made itself, in the process that runs it."""


@dataclass(frozen=True, slots=True)
class Proof:
    """One replay of the recorded answers.

    Attributes:
        digest: Of the bundle, see `runtime.bundle.Bundle.digest`.
        target: Where they were replayed, e.g. ``arm64/cortex-a72``.
        onnxruntime: Its version there.
        processor: The kind of processor there.
        variant: The variant of the models.
        ok: Whether every output stayed within its tolerance.
        date: The day, e.g. ``2026-11-28``.
        max_abs: The largest absolute error; None where an answer was no number to compare.
        share: That error as a share of what is allowed, where it came closest to it.
        system: The operating system and the language there.
        processor_class: As far as answers in int8 depend on it, see `runtime.processor`.
        emulated: Whether the processor was emulated. That proves arithmetic and linking, and says nothing of speed.
        cases: Recorded cases that were replayed.
        recorded: All recorded cases. Under emulation those are left out that add nothing.
        changed: Decisions that differ from the recorded ones. Of a variant without a budget those near a tie are left
            out, where the tolerance itself may move them.
        arithmetic: The largest part of a tolerance that stands for the target's own arithmetic, as a share of it; None
            where nothing was added.
        first_s: Seconds from the graph to its first answer, of the main model at batch 1.
        p50_ms: The median of its calls.
        p95_ms: Ninety-five of a hundred of its calls took at most this.
        memory_mb: The most memory that the process there held.
    """

    digest: str
    target: str
    onnxruntime: str
    processor: str
    variant: str
    ok: bool
    date: str
    max_abs: float | None = None
    share: float | None = None
    system: str | None = None
    processor_class: str | None = None
    emulated: bool | None = None
    cases: int | None = None
    recorded: int | None = None
    changed: int | None = None
    arithmetic: float | None = None
    first_s: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    memory_mb: float | None = None

    @property
    def place(self) -> tuple[str, str, str, str, str]:
        """What a later proof has to share with this one to take its place."""
        return self.digest, self.target, self.variant, self.onnxruntime, self.processor


def latest(proofs: Iterable[Proof]) -> tuple[Proof, ...]:
    """The last proof of each place, in the order in which the places were first proven."""
    return tuple({proof.place: proof for proof in proofs}.values())


def read_proofs(data: bytes) -> tuple[Proof, ...]:
    """Parses the content of ``proofs.json``.

    Raises:
        BundleError: it is not a list of proofs.
    """
    try:
        return tuple_of(_proof)(json.loads(data), "")
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{PROOFS} is not valid JSON: {error}; remove it and prove the bundle again") from error
    except BundleError as error:
        told = str(error).removeprefix("manifest.json: ")
        raise BundleError(f"{PROOFS}: {told}; remove it and prove the bundle again") from error


def write_proofs(proofs: tuple[Proof, ...]) -> bytes:
    """The content of ``proofs.json``."""
    documents = [{key: value for key, value in asdict(proof).items() if value is not None} for proof in proofs]
    return (json.dumps(documents, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _proof(value: Any, where: str) -> Proof:
    part = Fields(value, where)
    proof = Proof(
        digest=part.take("digest", digest),
        target=part.take("target", text),
        onnxruntime=part.take("onnxruntime", text),
        processor=part.take("processor", text),
        variant=part.take("variant", text),
        ok=part.take("ok", truth),
        date=part.take("date", text),
        max_abs=part.take("max_abs", number, default=None),
        share=part.take("share", number, default=None),
        system=part.take("system", text, default=None),
        processor_class=part.take("processor_class", text, default=None),
        emulated=part.take("emulated", truth, default=None),
        cases=part.take("cases", integer, default=None),
        recorded=part.take("recorded", integer, default=None),
        changed=part.take("changed", integer, default=None),
        arithmetic=part.take("arithmetic", number, default=None),
        first_s=part.take("first_s", number, default=None),
        p50_ms=part.take("p50_ms", number, default=None),
        p95_ms=part.take("p95_ms", number, default=None),
        memory_mb=part.take("memory_mb", number, default=None),
    )
    part.finish()
    return proof
