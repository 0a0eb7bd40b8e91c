"""What WCAG 2.2 asks of a page and a program can tell, by Chromium's own accessibility tree and what it has drawn.

The rules are those of axe-core that have ever found anything here. axe itself is not used: its packages for Python are
under the MPL and need a newer Python than this project; docs/decisions/0044-page.md has what it said of the page.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from tests.service.browser import Page

LANDMARKS = ("banner", "complementary", "contentinfo", "form", "main", "navigation", "region")

RULES = (Path(__file__).parent / "accessibility.js").read_text(encoding="utf-8")


def findings(page: Page) -> list[str]:
    """What is wrong with the page as it is now; nothing, if it is as it should be."""
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    known = [node for node in nodes if not node["ignored"]]
    nameless = [
        f"no name: {_role(node)}"
        for node in known
        if (_is_focusable(node) or _role(node) in ("image", "img")) and _role(node) != "RootWebArea" and not _name(node)
    ]
    landmarks = Counter((_role(node), _name(node)) for node in known if _role(node) in LANDMARKS)
    alike = [f"landmarks alike: {mark}" for mark, count in landmarks.items() if count > 1]
    return [*page.run(RULES), *nameless, *alike]


def _role(node: dict[str, Any]) -> str:
    return node.get("role", {}).get("value", "")


def _name(node: dict[str, Any]) -> str:
    return node.get("name", {}).get("value", "").strip()


def _is_focusable(node: dict[str, Any]) -> bool:
    return any(one["name"] == "focusable" and one["value"].get("value") for one in node.get("properties", ()))
