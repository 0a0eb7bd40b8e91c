"""What only one task uses lies in that task's room, not in the shared folders."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ("nn", "data", "training", "figures", "weights")


def sources(root: Path) -> dict[str, Path]:
    """The files of edgedl by the names of their modules."""
    found = {}
    for path in sorted((root / "edgedl").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def users(root: Path) -> dict[str, set[str]]:
    """Who reaches a shared file: rooms as ``tasks.NAME``, everything else above the shared folders by its own name."""
    files = sources(root)
    by = defaultdict(set)
    for module, path in files.items():
        for name in imported(path):
            by[name].add(module)

    def above(module: str) -> set[str]:
        seen: set[str] = set()
        found: set[str] = set()
        todo = [module]
        while todo:
            for user in by[todo.pop()] - seen:
                seen.add(user)
                parts = user.split(".")
                if parts[1] in SHARED:
                    todo.append(user)
                else:
                    is_room = parts[1] == "tasks" and (root / "edgedl" / "tasks" / parts[2]).is_dir()
                    found.add(".".join(parts[1:3]) if is_room else user)
        return found

    return {module: above(module) for module in files if module.split(".")[1:2] and module.split(".")[1] in SHARED}


def lodgers(root: Path) -> dict[str, str]:
    """The shared files that only one room uses, with that room."""
    found = {}
    for module, by in users(root).items():
        if len(by) == 1 and module.count(".") > 1:
            (user,) = by
            if user.startswith("tasks."):
                found[module] = user
    return found


def test_no_shared_file_is_used_by_one_room_alone() -> None:
    assert len(users(ROOT)) > 30
    assert not lodgers(ROOT)


def test_a_file_of_one_room_alone_is_noticed(tmp_path: Path) -> None:
    for name, text in {
        "nn/layers.py": "",
        "nn/cells.py": "from edgedl.nn import layers",
        "nn/shared.py": "",
        "tasks/tea/task.py": "from edgedl.nn.cells import Cell\nimport edgedl.nn.shared",
        "tasks/milk/task.py": "from edgedl.nn.shared import norm",
    }.items():
        path = tmp_path / "edgedl" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert lodgers(tmp_path) == {"edgedl.nn.layers": "tasks.tea", "edgedl.nn.cells": "tasks.tea"}
