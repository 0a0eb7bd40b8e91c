"""Sphinx: the manual from the Markdown pages of this tree, and the reference from docstrings. `make docs` builds it.

The source folder is the root of the tree, so that README, CONTRIBUTING and the pages of this folder are one site, and
every link works there as it does in the repository.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from edgedl import __version__  # noqa: E402 - the tree beside these pages, not an installed one

project = "edgedl"
author = "The edgedl authors"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx reads this name
version = release = __version__
language = "en"

root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "benchmarks/README.md"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"edgedl {release}"
html_copy_source = False
html_extra_path = ["site/root"]  # index.html, which leads to docs/index.html
html_static_path = ["site/static"]
html_css_files = ["wide.css"]
html_show_sphinx = False

# Headings get the anchors that GitHub gives them, so that a link such as command-line.md#photos works in both places.
myst_heading_anchors = 3

# Docstrings: single backticks name Python objects where there is one of that name, else they are code.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
