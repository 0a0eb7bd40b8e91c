"""Whether the four folders of edgedl are the ones that Python finds under their names.

``runtime``, ``service`` and ``exporters`` are names that anybody may use. A foreign folder of such a name that comes
earlier on ``sys.path`` takes the place of ours, and what fails then is an import somewhere else. This file imports
nothing of edgedl, so that it can be loaded by its path when ``runtime`` itself is the part that is shadowed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path

PARTS = ("edgedl", "exporters", "runtime", "service")
_MARK = re.compile(r"""^PART_OF\s*=\s*["']edgedl["']""", re.MULTILINE)


def shadowed(home: Path | None = None) -> list[str]:
    """Says which part is shadowed by what, one sentence each; empty when all is well. Imports nothing.

    Args:
        home: the folder that holds the four parts; None takes the one that this file lies in.
    """
    home = Path(__file__).resolve().parents[1] if home is None else home.resolve()
    problems = []
    for part in PARTS:
        found = _location(part)
        if found is None or found == home / part:
            continue
        kind = "another copy of edgedl" if _is_ours(found) else "a foreign package"
        problems.append(
            f"{part}: Python finds {kind} at {found}, edgedl's own is at {home / part}; rename or remove the other "
            "one, or keep its folder off sys.path (python -P, PYTHONSAFEPATH=1)"
        )
    return problems + _merged(home)


def _location(name: str) -> Path | None:
    """The folder that a top-level import takes, or has taken; the import itself is not made."""
    module = sys.modules.get(name)
    origin = getattr(module, "__file__", None)
    if module is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return None
        if spec is None:
            return None
        origin = spec.origin or next(iter(spec.submodule_search_locations or ()), None)
    if origin is None:
        return None
    path = Path(origin).resolve()
    return path.parent if path.name == "__init__.py" else path


def _is_ours(location: Path) -> bool:
    try:
        return bool(_MARK.search((location / "__init__.py").read_text(errors="replace")))
    except OSError:
        return False


def _merged(home: Path) -> list[str]:
    """Other distributions that were installed into our very folders, which pip allows without a word."""
    problems = []
    for distribution in importlib.metadata.distributions():
        name = distribution.name or ""
        if name.lower() == "edgedl" or Path(str(distribution.locate_file(""))).resolve() != home:
            continue
        tops = {file.parts[0] for file in distribution.files or () if len(file.parts) > 1}
        taken = sorted(tops.intersection(PARTS))
        if taken:
            problems.append(
                f"{', '.join(taken)}: the distribution {name} {distribution.version} installed its files into the same "
                f"folder at {home}; use a virtual environment for each"
            )
    return problems
