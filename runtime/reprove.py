"""A proof that is made where a bundle runs: all recorded cases are replayed, and ``proofs.json`` says how it went."""

from __future__ import annotations

from runtime.bundle import Bundle, record_proof
from runtime.door import Door
from runtime.errors import BundleError
from runtime.proofs import Proof


def reprove(door: Door, bundle: Bundle) -> Proof:
    """Replays the recorded cases that are not done, and keeps the proof beside the bundle.

    Args:
        door: Of the opened bundle.
        bundle: The bundle.

    Raises:
        BundleError: Nothing that was recorded can prove it here, or the proof cannot be written.
        CheckFailedError: An answer differs. Nothing is written.
    """
    door.first()
    for _ in door.rest():
        pass
    return keep_proof(door, bundle)


def keep_proof(door: Door, bundle: Bundle) -> Proof:
    """Keeps what a door has proven beside the bundle; all of its cases are done.

    Raises:
        BundleError: Nothing that was recorded can prove it here, or the proof cannot be written.
    """
    proof = door.proof()
    if proof is None:
        raise BundleError(f"{bundle.path} cannot be proven here: {door.proven}")
    record_proof(bundle.path, proof)
    return proof
