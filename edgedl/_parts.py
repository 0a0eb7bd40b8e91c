"""Whether foreign packages stand in the place of parts of edgedl. Imports nothing of edgedl."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType


def shadowed() -> list[str]:
    """Which foreign package shadows which part of edgedl, and where it lies; empty where all is well.

    The function lies in ``runtime/parts.py``. It is loaded from the file beside this package, because the very
    package that it would be imported from may be the one that is shadowed.
    """
    try:
        module = _beside_edgedl("runtime/parts.py")
    except (ImportError, OSError):
        return []  # half an installation; the import that failed says so
    found: list[str] = module.shadowed()
    return found


def _beside_edgedl(name: str) -> ModuleType:
    path = Path(__file__).resolve().parents[1] / name
    spec = importlib.util.spec_from_file_location("edgedl_parts", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded; install edgedl again", name="runtime")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
