"""The house: its public names, what importing them costs, and the size of its files."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import edgedl

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("edgedl", "exporters", "runtime", "service")
WORKSHOP = ("torch", "onnx", "onnxscript", "lightning")
SOURCES = sorted(path for folder in (*PACKAGES, "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
SHIPPED = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in PACKAGES]

WALK = """
import importlib, pkgutil, sys

refused = set(sys.argv[1].split(","))

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ImportError(f"{name} has no place here", name=name)

sys.meta_path.insert(0, Refuse())
for package in sys.argv[2:]:
    module = importlib.import_module(package)
    for found in pkgutil.walk_packages(module.__path__, package + "."):
        importlib.import_module(found.name)
        print(found.name)
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_public_surface():
    assert edgedl.__all__ == [
        "AgePipeline", "Bundle", "BundleError", "Call", "CaptionPipeline", "Case", "CharsPipeline", "CheckFailedError",
        "DeviceError", "DigitsPipeline", "EdgedlError", "Engine", "Input", "InputError", "MediaError",
        "MissingExtraError", "Output", "Range", "State", "TensorPipeline", "TooLargeError", "__version__", "export",
        "load", "verify",
    ]  # fmt: skip
    for name in edgedl.__all__:
        assert getattr(edgedl, name) is not None
    assert dir(edgedl) == edgedl.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = edgedl.nothing


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_says_what_it_is_part_of(package):
    assert __import__(package).PART_OF == "edgedl"


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_typed(package):
    assert (ROOT / package / "py.typed").is_file()


def test_importing_edgedl_imports_nothing_else():
    code = """
import sys
before = set(sys.modules)
import edgedl
print(sorted({name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))
"""
    done = python(code)
    assert done.stdout == "['edgedl']\n", done.stderr


def test_importing_edgedl_takes_no_time():
    """Counted in modules, which are as many on every machine; numpy alone has a hundred."""
    code = "import sys\nbefore = len(sys.modules)\nimport edgedl\nprint(len(sys.modules) - before)"
    assert int(python(code).stdout) <= 50


@pytest.mark.parametrize("package", ["runtime", "service", "edgedl.data"])
def test_what_goes_on_the_device_never_reaches_the_workshop(package):
    done = python(WALK, ",".join(WORKSHOP), package)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 5


def test_the_walk_above_notices():
    done = python(WALK, "numpy", "runtime")
    assert done.returncode != 0
    assert "has no place here" in done.stderr


# Longer than 400 lines, with the reason.
LONGER = {
    "edgedl/data/portrait_features.py": "how each feature of a face is drawn: a list of like functions",
    "exporters/loops/rolling.py": "one writer of one program, whose parts share what it has written",
}


def test_files_are_of_a_size_to_be_read():
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in SHIPPED}
    assert {name: count for name, count in lines.items() if count > 400}.keys() == LONGER.keys()


def test_no_file_or_folder_is_a_drawer_for_everything():
    drawers = {"utils", "helpers", "common", "manager", "misc"}
    names = [path.relative_to(ROOT).with_suffix("") for path in SOURCES]
    assert [str(name) for name in names if drawers & set(name.parts)] == []


def test_every_module_says_what_it_is_for():
    silent = [
        str(path.relative_to(ROOT))
        for path in SHIPPED
        if not (ast.get_docstring(ast.parse(path.read_text())) or "").strip()
    ]
    assert silent == []


def test_make_check_runs_every_check():
    recipe = (ROOT / "Makefile").read_text().partition("\ncheck:")[2].partition("\n\n")[0]
    for tool in ("ruff check", "ruff format --check", "mypy", "lint-imports", "hadolint Dockerfile"):
        assert tool in recipe


def test_the_linter_of_layers_knows_all_packages():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["tool"]["importlinter"]["root_packages"] == list(PACKAGES)
    assert settings["tool"]["mypy"]["packages"] == list(PACKAGES)
    assert settings["tool"]["mypy"]["strict"] is True
    assert settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == list(PACKAGES)
    device = settings["tool"]["importlinter"]["contracts"][3]
    assert device["source_modules"] == ["runtime", "service"]
    assert set(WORKSHOP) <= set(device["forbidden_modules"])


def test_layers_hold():
    # In a process of its own: import-linter sets up logging for the whole process it runs in.
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = python(code)
    assert done.returncode == 0, done.stdout


def test_every_requirement_of_the_extras_is_pinned_once():
    """What CI installs is decided in constraints.txt alone."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = settings["project"]
    groups = [one for group in settings["dependency-groups"].values() for one in group if isinstance(one, str)]
    wanted = [*project["dependencies"], *groups, *settings["build-system"]["requires"]]
    for extra, requirements in project["optional-dependencies"].items():
        wanted += requirements if extra not in ("gpu", "ray") else []  # CI has neither a GPU nor a cluster
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            assert version, line
            assert canonicalize_name(name) not in pins, line
            pins[canonicalize_name(name)] = version
    for requirement in map(Requirement, wanted):
        if requirement.name != "edgedl":
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement
