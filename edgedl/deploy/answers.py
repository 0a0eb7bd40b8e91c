"""Asks a running service for recorded answers, and judges them as `edgedl verify` does.

It runs on the device, in the environment of the release, beside the service::

    python -m edgedl.deploy.answers BUNDLE NAME HOST:PORT|unix:PATH [VARIANT]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedl.deploy.device.health import ask
from runtime.bundle import Bundle
from runtime.door import prove_case
from runtime.engine import Engine
from runtime.errors import CheckFailedError, EdgedlError
from runtime.golden import GoldenCase
from runtime.manifest import ModelSpec
from service.routes.v2.datatypes import bytes_of_tensor, datatype_of, tensor_of_bytes
from service.routes.v2.tensors import HEADER_LENGTH

WAIT_SECONDS = 60.0


class RemoteSession:
    """Runs a graph through ``/v2``, in the place of an ONNX Runtime session.

    Args:
        address: Of the service.
        model: The name of the graph there.
        spec: Its signature.

    Attributes:
        problem: Why there was no answer.
    """

    def __init__(self, address: str, model: str, spec: ModelSpec) -> None:
        self._address, self._path = address, f"/v2/models/{model}/infer"
        self._dtypes = {tensor.name: tensor.dtype for tensor in spec.outputs}
        self.problem: str | None = None

    def run(self, names: Sequence[str], feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs in the order of their names.

        Raises:
            CheckFailedError: The service refuses, or cannot be reached.
        """
        blobs = {name: bytes(bytes_of_tensor(array)) for name, array in feed.items()}
        head = {
            "inputs": [
                {
                    "name": name,
                    "shape": list(array.shape),
                    "datatype": datatype_of(array),
                    "parameters": {"binary_data_size": len(blobs[name])},
                }
                for name, array in feed.items()
            ],
            "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in names],
        }
        text = json.dumps(head).encode()
        headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(text))}
        try:
            status, fields, body = ask(
                self._address, "POST", self._path, b"".join((text, *blobs.values())), headers, WAIT_SECONDS
            )
        except OSError as error:
            self.problem = f"POST {self._path}: {error}"
            raise CheckFailedError(self.problem) from error
        if status != 200:
            self.problem = f"POST {self._path} gives {status}: {body[:300].decode(errors='replace')}"
            raise CheckFailedError(self.problem)
        end, data = int(fields[HEADER_LENGTH]), memoryview(body)
        found: dict[str, NDArray[Any]] = {}
        for row in json.loads(body[:end])["outputs"]:
            start, name = end, row["name"]
            end = start + row["parameters"]["binary_data_size"]
            found[name] = tensor_of_bytes(self._dtypes[name], tuple(row["shape"]), data[start:end], name)
        return [found[name] for name in names]


def check_service(bundle: Bundle, name: str, address: str, variant: str | None = None) -> str:
    """Sends the smallest recorded case of each model to a service.

    Args:
        bundle: What is served.
        name: What the service calls it.
        address: Of the service.
        variant: The form of the graphs that it runs.

    Returns:
        What was found, in words.

    Raises:
        CheckFailedError: An answer is not as it was recorded.
    """
    shares = []
    for model, spec in bundle.manifest.models.items():
        cases = sorted(filter(_can_be_sent, bundle.golden(model)), key=_numbers)
        if not cases:
            continue
        form = spec.form(variant or "fp32")
        session = RemoteSession(address, f"{name}.{model}", spec)
        with Engine(bundle.graph(model, form), spec=spec, name=model, threads=1) as engine:
            engine.through(partial(_instead, session))
            checks = prove_case(engine, cases[0], form)
        if session.problem is not None:
            raise CheckFailedError(session.problem)
        if spec.variants[form].budget is not None:
            continue  # it may give other answers, and a single one tells nothing of its budget
        for check in checks:
            if not check:
                found = check.note or f"error {check.max_abs:.2e}, allowed {check.allowed:.2e}"
                raise CheckFailedError(f"model {model}, output {check.output}: {found}")
            shares.append(check.share)
    if not shares:
        return "it answers; no recorded answer could be compared"
    return f"recorded answers come back over HTTP within {max(shares):.2g} of the tolerance"


def _instead(there: RemoteSession, _here: Any) -> RemoteSession:
    return there


def _numbers(case: GoldenCase) -> int:
    return sum(array.size for array in case.inputs.values())


def _can_be_sent(case: GoldenCase) -> bool:
    """Whether a service takes the inputs from anybody; empty and infinite ones are recorded as well."""
    return all(
        array.size and (array.dtype.kind != "f" or bool(np.isfinite(array).all())) for array in case.inputs.values()
    )


def main(words: Sequence[str]) -> int:
    """Prints one JSON document."""
    path, name, address, *variant = words
    try:
        document = {"ok": True, "told": check_service(Bundle.open(path, check=False), name, address, *variant)}
    except EdgedlError as error:
        document = {"ok": False, "told": str(error)}
    sys.stdout.write(json.dumps(document))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
