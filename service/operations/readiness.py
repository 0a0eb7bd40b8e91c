"""What ``/readyz`` says: which bundles answer, and what was proven of each on this machine.

It reads states that others keep and computes nothing, so a front may call it in its event loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.door import proven_json
from service.bundles.repository import Repository
from service.bundles.served import Served


def readiness(repository: Repository, kept_out: Mapping[Path, str]) -> tuple[dict[str, Any], bool]:
    """The document, and whether every bundle answers.

    Args:
        repository: The bundles.
        kept_out: What lies at a path and was refused, with the reason. It does not make the service unready: what was
            there before goes on answering.
    """
    bundles = repository.all()
    unready = list(dict.fromkeys(one.name for one in bundles if not one.ready()))
    document: dict[str, Any] = {"status": "unready" if unready else "ready"}
    if unready:
        document["unready"] = unready
    document["bundles"] = [_row(one) for one in bundles]
    if kept_out:
        document["kept_out"] = [
            {"file": path.name, "reason": reason.replace(str(path), path.name)} for path, reason in kept_out.items()
        ]
    return document, not unready


def _row(one: Served) -> dict[str, Any]:
    proven = one.health.door.proven
    return {
        "name": one.name,
        "version": one.version,
        "ready": one.ready(),
        "failure": one.failure,
        "withdrawn": one.health.withdrawn is not None,
        "proven": str(proven),
        **proven_json(proven),
        "stackable": one.health.door.stackable,
    }
