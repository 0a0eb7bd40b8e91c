"""Where a bundle comes from: the versions of all that made it, and the state of the source it was made in."""

from __future__ import annotations

import importlib.metadata
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")


def provenance(given: Mapping[str, Any], *, opset: int, ir_version: int) -> dict[str, Any]:
    """What is known by itself, then what the caller knows (``seed``, ``data``, ``weights``, …), which goes first.

    Returns:
        ``tool``, the packages' versions, ``opset``, ``ir_version``, and ``git`` where the working folder lies in a
        repository, with ``+dirty`` where it holds changes.
    """
    found: dict[str, Any] = {"tool": f"edgedl {_version('edgedl') or 'from source'}"}
    for package in PACKAGES:
        found[package] = _version(package) or "unknown"
    found |= {"opset": opset, "ir_version": ir_version}
    revision = git_revision(Path.cwd())
    if revision:
        found["git"] = revision
    return found | dict(given)


def git_revision(folder: Path) -> str | None:
    """The commit that a folder is at, with ``+dirty`` if a tracked file was changed; None outside a repository."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return f"{commit}+dirty" if _git(folder, "status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


def _version(package: str) -> str | None:
    for name in (package, f"{package}-gpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
