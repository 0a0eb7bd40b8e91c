"""The manifests of Kubernetes and KServe: read by their own schemas, and in step with the service."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgedl.cli import build_parser
from service.app import create_app
from service.keys import Keys
from tests.bundles import write_scale_bundle

ROOT = Path(__file__).parents[2]
BASE, KSERVE = ROOT / "kubernetes" / "base", ROOT / "kubernetes" / "kserve"
FOLDERS = pytest.mark.parametrize("folder", [BASE, KSERVE], ids=lambda folder: folder.name)
MANUAL = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
OLDEST = "1.30"
"""Kubernetes from which `preStop.sleep` may be used without a switch."""


def listed(folder: Path) -> list[Path]:
    """The manifests that kustomize puts together."""
    return [folder / name for name in yaml.safe_load((folder / "kustomization.yaml").read_bytes())["resources"]]


def containers() -> list[dict[str, Any]]:
    deployment = yaml.safe_load((BASE / "deployment.yaml").read_bytes())
    runtime = yaml.safe_load((KSERVE / "serving-runtime.yaml").read_bytes())
    return [*deployment["spec"]["template"]["spec"]["containers"], *runtime["spec"]["containers"]]


CONTAINERS = pytest.mark.parametrize("container", containers(), ids=lambda container: container["name"])


@FOLDERS
def test_every_file_is_part_of_the_whole(folder: Path) -> None:
    assert sorted(listed(folder)) == sorted(set(folder.glob("*.yaml")) - {folder / "kustomization.yaml"})


@FOLDERS
def test_every_file_is_in_the_table_of_the_manual_or_named_there(folder: Path) -> None:
    kinds = [yaml.safe_load(path.read_bytes())["kind"] for path in listed(folder)]
    missing = [
        path.name
        for path, kind in zip(listed(folder), kinds, strict=True)
        if f"`{path.name}`" not in MANUAL and f"`{kind}`" not in MANUAL
    ]
    assert not missing


@CONTAINERS
def test_the_probes_are_routes_that_need_no_key(container: dict[str, Any], tmp_path: Path) -> None:
    write_scale_bundle(tmp_path / "scale.edge")
    app = create_app([tmp_path / "scale.edge"], threads=1, keys=Keys((("somebody", bytes(32)),)))
    client = app.test_client()
    assert client.get("/v1").status_code == 401
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert client.get(container[probe]["httpGet"]["path"]).status_code == 200


@CONTAINERS
def test_the_arguments_are_those_of_serve(container: dict[str, Any]) -> None:
    entry = re.search(r'^ENTRYPOINT \["edgedl", (.+)\]$', (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert entry is not None
    words = re.findall(r'"([^"]+)"', entry[1]) + container["args"]
    args = build_parser().parse_args(words)
    ports = [port["containerPort"] for port in container["ports"]]
    assert (args.host, ports) == ("0.0.0.0", [args.port])
    assert bool(args.bundles) != bool(args.repository)


@CONTAINERS
def test_nothing_more_is_allowed_than_the_image_needs(container: dict[str, Any]) -> None:
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    pod = yaml.safe_load((BASE / "deployment.yaml").read_bytes())["spec"]["template"]["spec"]["securityContext"]
    user = re.search(r"^USER (\d+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    assert {**pod, **security}["runAsUser"] == int(user[1])
    assert {**pod, **security}["runAsNonRoot"] is True


def test_the_autoscaler_reads_what_the_adapter_makes_of_a_metric_that_is_there(tmp_path: Path) -> None:
    (rules,) = re.findall(r"```yaml\n(rules:.*?)```", MANUAL, re.DOTALL)
    (rule,) = yaml.safe_load(rules)["rules"]
    autoscaler = yaml.safe_load((BASE / "autoscaler.yaml").read_bytes())
    assert [metric["pods"]["metric"]["name"] for metric in autoscaler["spec"]["metrics"]] == [rule["name"]["as"]]
    write_scale_bundle(tmp_path / "scale.edge")
    told = create_app([tmp_path / "scale.edge"], threads=1).test_client().get("/metrics").text
    for name in re.findall(r"edgedl_\w+", rule["metricsQuery"] + rule["seriesQuery"]):
        assert f"\n{name}{{" in told, name


def environment(folder: Path, *packages: str) -> Path:
    """The Python of a fresh environment with packages."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


@pytest.mark.slow
def test_the_kinds_of_kubernetes_pass_its_schemas_and_a_misspelt_field_does_not(tmp_path: Path) -> None:
    python = environment(tmp_path / "venv", "kubernetes-validate")

    def validate(path: Path, *version: str) -> subprocess.CompletedProcess[str]:
        command = [python.with_name("kubernetes-validate"), "--strict", *version, path]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    for version in (("-k", OLDEST), ()):
        for path in listed(BASE):
            done = validate(path, *version)
            told = (done.stdout + done.stderr).splitlines()
            assert done.returncode == 0, told
            assert all(line.startswith("INFO ") for line in told), told
    planted = tmp_path / "deployment.yaml"
    planted.write_text((BASE / "deployment.yaml").read_text().replace("readinessProbe", "readynessProbe"))
    done = validate(planted)
    assert done.returncode
    assert "readynessProbe" in done.stdout + done.stderr


@pytest.mark.slow
def test_the_kinds_of_kserve_are_read_by_its_models_and_a_misspelt_field_is_not(tmp_path: Path) -> None:
    python = environment(tmp_path / "venv", "kserve", "pyyaml")

    def read(text: str) -> subprocess.CompletedProcess[str]:
        command = [python, Path(__file__).with_name("kserve_models.py")]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)

    for path in listed(KSERVE):
        done = read(path.read_text())
        assert (done.returncode, done.stdout.strip()) == (0, ""), done.stdout + done.stderr
    for name, right, wrong in (
        ("serving-runtime.yaml", "readinessProbe", "readynessProbe"),
        ("inference-service.yaml", "storageUri", "storageURI"),
    ):
        done = read((KSERVE / name).read_text().replace(right, wrong))
        assert (done.returncode, wrong in done.stdout) == (1, True), done.stdout + done.stderr
