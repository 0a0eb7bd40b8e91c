"""Where a bundle runs, and whether a proof of it was made in such a place.

What a graph answers depends on ONNX Runtime's version and on the class of the processor (`runtime.processor`). A proof
that was made with the same version on the same class speaks of this place, whatever the machine is called.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from runtime.bundle import Bundle
from runtime.devices import CPU, onnxruntime
from runtime.engine import Engine
from runtime.errors import BundleError
from runtime.machine import processor_name
from runtime.processor import processor_class
from runtime.proofs import Proof

logger = logging.getLogger("edgedl.door")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bundle was opened: what its answers depend on beside its graphs."""

    device: str
    provider: str
    onnxruntime: str
    processor: str
    processor_class: str

    @classmethod
    def here(cls, device: str = "cpu", provider: str = CPU) -> Place:
        """This process, with a device and its provider."""
        return cls(device, provider, str(onnxruntime().__version__), processor_name(), processor_class())

    @classmethod
    def of(cls, engines: Mapping[str, Engine]) -> Place | None:
        """Where engines run; None without any."""
        if not engines:
            return None

        def every(values: Iterator[str]) -> str:
            return ", ".join(dict.fromkeys(values))

        devices = every(engine.device for engine in engines.values())
        return cls.here(devices, every(engine.provider for engine in engines.values()))

    def differs(self, proof: Proof) -> tuple[str, ...]:
        """What is another than where a proof was made: ``onnxruntime``, ``processor``.

        Processors differ by their class; by their name, where an older proof has none.
        """
        same = (
            proof.processor == self.processor
            if proof.processor_class is None
            else proof.processor_class == self.processor_class
        )
        found = (("onnxruntime", proof.onnxruntime == self.onnxruntime), ("processor", same))
        return tuple(name for name, equal in found if not equal)


def last_proof(bundle: Bundle, place: Place | None, variant: str) -> Proof | None:
    """The last good proof of this very bundle in a variant, one made in such a place before all others."""
    try:
        found: Iterable[Proof] = bundle.proofs
    except BundleError:
        return None  # proofs lie outside of what is trusted; a damaged file of them says nothing of the bundle
    proofs = [proof for proof in found if (proof.digest, proof.variant, proof.ok) == (bundle.digest, variant, True)]
    here = [proof for proof in proofs if place is not None and not place.differs(proof)]
    chosen = here or proofs
    return chosen[-1] if chosen else None


def told_unproven(bundle: Bundle, place: Place, last: Proof | None) -> str | None:
    """A sentence where there are proofs and none was made in such a place, with how to make one; None elsewhere."""
    if last is None or not place.differs(last):
        return None
    manifest = bundle.manifest
    kind = last.processor_class or last.processor
    return (
        f"{manifest.name} {manifest.version} was not proven with ONNX Runtime {place.onnxruntime} on a processor of "
        f"the class {place.processor_class}; the last proof is of {last.date}, with {last.onnxruntime} on {kind} "
        f"({last.target}). `edgedl doctor {bundle.path} --reprove` replays its recorded answers here"
    )


def notice(bundle: Bundle, engines: Mapping[str, Engine], variant: str) -> None:
    """Logs a warning where the proofs beside a bundle speak of other places only."""
    place = Place.of(engines)
    told = None if place is None else told_unproven(bundle, place, last_proof(bundle, place, variant))
    if told is not None:
        logger.warning("%s", told)
