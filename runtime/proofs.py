"""Proofs: where a bundle's recorded answers were replayed, and how it went.

They lie in ``proofs.json`` beside the manifest and outside the bundle's digest. Proving a bundle on one more target
changes neither its digest nor a signature of it. Each proof names the digest of the bundle that it speaks of.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from runtime.errors import BundleError
from runtime.fields import Fields, digest, number, text, truth, tuple_of

PROOFS = "proofs.json"


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
    )
    part.finish()
    return proof
