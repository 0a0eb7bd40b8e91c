"""The models of a service: each pipeline by the name of its bundle, each of its graphs as ``NAME.MODEL``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from runtime.manifest import ModelSpec, TensorSpec
from service.bundles.repository import Repository
from service.bundles.served import Served
from service.problems import Problem
from service.routes.v2.datatypes import DATATYPES

PIPELINE = ModelSpec(
    variants={}, inputs=(TensorSpec("input", "string", ("N",)),), outputs=(TensorSpec("output", "string", ("N",)),)
)
"""Every pipeline's tensors: what it is asked about as encoded bytes, and its results as JSON."""


@dataclass(frozen=True, slots=True)
class Model:
    """One model, as clients of the protocol see it.

    Attributes:
        served: The bundle.
        graph: One of its graphs; None is the pipeline.
    """

    served: Served
    graph: str | None = None

    @property
    def name(self) -> str:
        """The name that it is asked by."""
        return self.served.name if self.graph is None else f"{self.served.name}.{self.graph}"

    @property
    def version(self) -> str:
        """The version of its bundle."""
        return self.served.version

    @property
    def spec(self) -> ModelSpec:
        """Its inputs and outputs."""
        return PIPELINE if self.graph is None else self.served.pipeline.engines[self.graph].spec


def find_model(repository: Repository, name: str, version: str | None = None) -> Model:
    """A model by its name, of the highest version unless one is given.

    Where a bundle is called like a graph of another one, the bundle is meant.

    Raises:
        Problem: 404.
    """
    for bundle, graph in _readings(name):
        if bundle not in repository:
            continue
        for one in _each_version(repository, bundle) if version is None else [repository.find(bundle, version)]:
            if graph is None or graph in one.pipeline.engines:
                return Model(one, graph)
    known = ", ".join(dict.fromkeys(model.name for model in all_models(repository)))
    raise Problem(404, f"There is no model {name!r}; this service has {known}.", found=name, expected=known)


@contextmanager
def lease_model(repository: Repository, name: str, version: str | None = None) -> Iterator[Model]:
    """A model as `find_model` gives it. Its bundle is not closed before the request has ended.

    Raises:
        Problem: 404.
    """
    with repository.hold(lambda: find_model(repository, name, version).served) as one:
        yield Model(one, None if name == one.name else name.removeprefix(f"{one.name}."))


def all_models(repository: Repository) -> Iterator[Model]:
    """Every model in every version: of each bundle the pipeline, then its graphs."""
    for name in repository:
        for one in _each_version(repository, name):
            yield Model(one)
            yield from (Model(one, graph) for graph in one.pipeline.engines)


def versions_of(repository: Repository, model: Model) -> list[str]:
    """The versions that have a model, the highest first."""
    bundles = _each_version(repository, model.served.name)
    return [one.version for one in bundles if model.graph is None or model.graph in one.pipeline.engines]


def metadata(model: Model, versions: list[str]) -> dict[str, Any]:
    """A model's name, versions and tensors; a size that may vary is -1."""
    return {
        "name": model.name,
        "versions": versions,
        "platform": _platform(model),
        "inputs": [_tensor(tensor) for tensor in model.spec.inputs],
        "outputs": [_tensor(tensor) for tensor in model.spec.outputs],
    }


def configuration(model: Model) -> dict[str, Any]:
    """A model's configuration in the form of Triton's.

    ``max_batch_size`` is 0: the dimensions are all there, that of the batch among them.
    """
    engine = None if model.graph is None else model.served.pipeline.engines[model.graph]
    kind = "KIND_CPU" if engine is None or engine.device == "cpu" else "KIND_GPU"
    return {
        "name": model.name,
        "platform": _platform(model),
        "backend": "edgedl" if engine is None else "onnxruntime",
        "max_batch_size": 0,
        "input": [_configured(tensor) for tensor in model.spec.inputs],
        "output": [_configured(tensor) for tensor in model.spec.outputs],
        "instance_group": [{"name": model.name, "kind": kind, "count": 1}],
    }


def _each_version(repository: Repository, name: str) -> Iterator[Served]:
    for version in repository.versions(name):
        with suppress(Problem):  # it may have been taken out meanwhile
            yield repository.find(name, version)


def _platform(model: Model) -> str:
    return "edgedl_pipeline" if model.graph is None else "onnxruntime_onnx"


def _tensor(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": DATATYPES[tensor.dtype], "shape": _sizes(tensor)}


def _configured(tensor: TensorSpec) -> dict[str, Any]:
    datatype = DATATYPES[tensor.dtype]
    kind = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
    return {"name": tensor.name, "data_type": kind, "dims": _sizes(tensor)}


def _sizes(tensor: TensorSpec) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in tensor.shape]


def _readings(name: str) -> Iterator[tuple[str, str | None]]:
    """How a name may be meant: as a bundle, or as one and its graph, the longest bundle first; both may have dots."""
    yield name, None
    dot = name.rfind(".")
    while dot > 0:
        yield name[:dot], name[dot + 1 :]
        dot = name.rfind(".", 0, dot)
