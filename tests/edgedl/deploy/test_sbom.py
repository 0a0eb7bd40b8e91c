"""A wheelhouse with its bill of materials, which CycloneDX's own library validates."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgedl.cli import main
from edgedl.deploy.carry import SBOM, write_wheelhouse
from edgedl.deploy.sbom import sbom
from edgedl.deploy.wheelhouse import Wheel, read_wheels
from runtime.bundle import Bundle
from runtime.errors import InputError
from tests.bundles import write_scale_bundle

VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())
sys.exit(str(error.data)[:1000] if error else 0)
"""
TOLD = {
    "edgedl": "License-Expression: Apache-2.0\nSummary: takes networks to devices\nRequires-Dist: numpy>=1.26\n"
    "Requires-Dist: onnxruntime>=1.21; extra == 'cpu'\n",
    "onnxruntime": "License: MIT License\nRequires-Dist: numpy >=1.21\nRequires-Dist: flatbuffers\n",
    "numpy": "Classifier: License :: OSI Approved :: BSD License\nLicense: " + "text " * 90 + "\n",
    "pip": "License: MIT\n",
}


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    return write_scale_bundle(tmp_path / "scale.edge")


@pytest.fixture
def wheels(tmp_path) -> tuple[Wheel, ...]:
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, told in TOLD.items():
        with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr(
                f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{told}"
            )
    return read_wheels(folder)


def test_everything_is_named_with_its_digest_and_its_licence(bundle, wheels):
    document = sbom(bundle, wheels)
    found = {row["name"]: row for row in document["components"]}
    assert set(found) == {"scale", *TOLD}
    for wheel in wheels:
        assert found[wheel.name]["hashes"][0]["content"] == hashlib.sha256(wheel.path.read_bytes()).hexdigest()
        assert found[wheel.name]["purl"] == f"pkg:pypi/{wheel.name}@1.0"
    assert found["edgedl"]["licenses"] == [{"expression": "Apache-2.0"}]
    assert found["onnxruntime"]["licenses"] == [{"license": {"name": "MIT License"}}]
    assert found["numpy"]["licenses"] == [{"license": {"name": "BSD License"}}]
    assert found["scale"]["type"] == "machine-learning-model"
    assert found["scale"]["hashes"][0]["content"] == bundle.model("scale").variants["fp32"].sha256
    depends = {row["ref"]: row["dependsOn"] for row in document["dependencies"]}
    assert depends["bundle"] == ["model:scale:fp32", "pypi:edgedl@1.0"]
    assert depends["pypi:edgedl@1.0"] == ["pypi:numpy@1.0", "pypi:onnxruntime@1.0"]
    assert depends["pypi:onnxruntime@1.0"] == ["pypi:numpy@1.0"]


def test_equal_contents_give_equal_documents(bundle, wheels):
    assert sbom(bundle, wheels) == sbom(bundle, wheels)
    assert sbom(bundle, wheels)["serialNumber"] != sbom(bundle, wheels[:-1])["serialNumber"]


@pytest.mark.slow
@pytest.mark.network
def test_the_document_is_cyclonedx(bundle, wheels, tmp_path):
    """The validator brings twenty packages along, so it has an environment of its own."""
    write_wheelhouse(bundle, wheels, tmp_path / "house")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    words = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "cyclonedx-python-lib[json-validation]",
    ]
    subprocess.run(words, check=True)
    right = tmp_path / "house" / SBOM
    spoilt = tmp_path / "spoilt.json"
    spoilt.write_text(right.read_text().replace('"SHA-256"', '"SHA-257"'))
    for path, status in ((right, 0), (spoilt, 1)):
        done = subprocess.run([python, "-c", VALIDATE, path], capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr


def test_a_wheelhouse_has_all_and_is_replaced_whole(bundle, wheels, tmp_path):
    folder = tmp_path / "house"
    write_wheelhouse(bundle, wheels, folder)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(["requirements.txt", SBOM, "scale-2.0.1.edge", *(wheel.file for wheel in wheels)])
    assert Bundle.open(folder / "scale-2.0.1.edge").digest == bundle.digest
    assert read_wheels(folder) != wheels  # other places
    assert [wheel.sha256 for wheel in read_wheels(folder)] == [wheel.sha256 for wheel in wheels]
    (folder / "old").write_text("")
    write_wheelhouse(bundle, wheels, folder)
    assert sorted(path.name for path in folder.iterdir()) == names


def test_a_wheelhouse_stays_where_the_new_one_cannot_take_its_place(bundle, wheels, tmp_path, monkeypatch):
    folder = tmp_path / "house"
    write_wheelhouse(bundle, wheels, folder)
    (folder / "old").write_text("")
    before = {path.name for path in tmp_path.iterdir()}
    rename, calls = Path.rename, []

    def full(path, target):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(InputError, match="No space left"):
        write_wheelhouse(bundle, wheels, folder)
    assert (folder / "old").exists()
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_folder_with_something_else_is_left_alone(bundle, wheels, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("dear")
    with pytest.raises(InputError, match="something that is no wheelhouse is there"):
        write_wheelhouse(bundle, wheels, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter"]


def test_the_command_says_what_it_wrote(bundle, wheels, tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr("edgedl.deploy.wheelhouse.fetch_wheels", lambda *asked: seen.append(asked) or wheels)
    words = [
        "pack",
        str(bundle.path),
        "--wheelhouse",
        str(tmp_path / "house"),
        "--platform",
        "aarch64-3.11-2.36",
        "--json",
    ]
    assert main(words) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in document["packages"]] == [wheel.name for wheel in wheels]
    assert (str(seen[0][0]), seen[0][1]) == ("aarch64-3.11-2.36", "cpu,serve")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--platform", "aarch64-3.11-2.36"], "belong to --wheelhouse"),
        (["--wheelhouse", "h", "--platform", "arm"], "'arm' is no platform"),
        (["--wheelhouse", "h", "-o", "x"], "no file to sign"),
    ],
    ids=["alone", "platform", "output"],
)
def test_a_mistake_is_one_sentence(bundle, tmp_path: Path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    assert main(["pack", str(bundle.path), *words]) == 2
    assert told in capsys.readouterr().err
