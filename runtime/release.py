"""What a bundle has to be proven on before it is released: targets, and the share of a tolerance that errors may take.

It stands in the manifest, so it is part of the bundle's digest and of what a signature covers. Proofs lie outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.errors import BundleError
from runtime.fields import Fields, number, text, tuple_of
from runtime.proofs import Proof, latest


@dataclass(frozen=True, slots=True)
class Release:
    """What is asked for.

    Attributes:
        targets: Where the bundle has to be proven. A name without a processor, e.g. ``arm64``, is met by any of them.
        share: How much of a tolerance the worst error may take there, 1 for all of it.
    """

    targets: tuple[str, ...]
    share: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """The JSON form; `parse_release` reads it."""
        return {"targets": list(self.targets), "share": self.share}


def parse_release(value: Any, where: str) -> Release:
    """Parses the JSON form."""
    part = Fields(value, where)
    release = Release(part.take("targets", tuple_of(text)), part.take("share", number, default=1.0))
    part.finish()
    if not 0 < release.share <= 1:
        raise BundleError(f"manifest.json: {where}.share is {release.share:g}, expected a share above 0 and at most 1")
    return release


def unproven(
    release: Release, digest: str, variants: Sequence[str], proofs: Sequence[Proof]
) -> Mapping[tuple[str, str], str]:
    """What stands in the way of a release: for each target and variant that is not proven, the reason.

    Args:
        release: What is asked for.
        digest: Of the bundle.
        variants: The variants that are to be released.
        proofs: All proofs beside the bundle. Of each place the last one counts.
    """
    found: dict[tuple[str, str], str] = {}
    for target in release.targets:
        for variant in variants:
            there = [
                proof
                for proof in latest(proof for proof in proofs if proof.digest == digest)
                if proof.variant == variant and (proof.target == target or proof.target.startswith(f"{target}/"))
            ]
            if not there:
                found[target, variant] = "not proven"
            elif any(not proof.ok for proof in there):
                found[target, variant] = "an answer differs"
            else:
                worst = max(proof.share or 0.0 for proof in there)
                if worst > release.share:
                    found[target, variant] = f"an error takes {worst:.2g} of its tolerance, {release.share:g} may be"
    return found
