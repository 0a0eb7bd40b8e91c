"""The page's own JavaScript against Python: reading npz, comparing, and random numbers, in Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.compare import compare
from runtime.detection import Looks
from runtime.faces import MarginCrop
from runtime.golden import GoldenCase, golden_to_npz
from runtime.intervals import Coverage, Interval, Measured
from runtime.manifest import OutputParity
from runtime.pipelines.age import AgeSettings
from runtime.sampling import uniform_numbers

ROOT = Path(__file__).parents[3]
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="Node is not on the PATH")


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts as the page has them, side by side."""
    folder = tmp_path_factory.mktemp("scripts")
    shutil.copytree(ROOT / "edgedl/deploy/web/assets", folder, dirs_exist_ok=True)
    shutil.copytree(ROOT / "exporters/targets/javascript", folder, dirs_exist_ok=True)
    return folder


def run(scripts: Path, program: str, *arguments: str) -> Any:
    """What a program prints as JSON."""
    command = [str(NODE), "--input-type=module", "-e", program, *arguments]
    done = subprocess.run(command, cwd=scripts, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_recorded_answers_are_read_as_they_were_written(scripts: Path, tmp_path: Path) -> None:
    version = run(scripts, "console.log(JSON.stringify(process.versions.node.split('.').map(Number)))")
    if version < [20, 12]:
        pytest.skip("Node inflates bare streams from 20.12 on; browsers do so all the time")
    chance = np.random.default_rng(0)
    kinds = [
        "float16",
        "float32",
        "float64",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "bool",
    ]
    arrays = {kind: (chance.random((2, 1, 3)) * 100).astype(kind) for kind in kinds}
    arrays |= {"text": np.array([["a", "éß"], ["", "long"]]), "scalar": np.array(3.5), "empty": np.zeros((0, 2), "f4")}
    path = tmp_path / "golden.npz"
    path.write_bytes(golden_to_npz([GoldenCase("one", arrays, {"y": np.arange(3.0)}), GoldenCase("two", {}, {})]))
    program = """
      import { readFileSync } from "node:fs";
      import { readCases } from "./npz.js";
      const [one] = await readCases(new Uint8Array(readFileSync(process.argv[1])));
      const told = (value) => (typeof value === "bigint" ? String(value) : value);
      const plain = ({ dtype, shape, data }) => [dtype, shape, Array.from(data, told)];
      const inputs = Object.entries(one.inputs).map(([name, array]) => [name, plain(array)]);
      console.log(JSON.stringify([one.name, Object.fromEntries(inputs), plain(one.outputs.y)]));
    """
    name, inputs, y = run(scripts, program, str(path))
    assert name == "one"
    assert y == ["float64", [3], [0, 1, 2]]
    assert inputs.keys() == arrays.keys()
    assert inputs["text"] == ["string", [2, 2], ["a", "éß", "", "long"]]
    for key in arrays.keys() - {"text"}:
        dtype, shape, values = inputs[key]
        expected = arrays[key].view(np.uint16) if key == "float16" else arrays[key]
        assert (dtype, tuple(shape)) == (arrays[key].dtype.name, arrays[key].shape)
        assert np.array_equal(np.array(values, object).astype(expected.dtype).reshape(shape), expected), key


CASES: dict[str, tuple[Any, Any, OutputParity]] = {
    "within": (np.float32([1, 2.0005]), np.array([1, 2.0]), OutputParity(1e-3, 0.0)),
    "beyond": (np.float32([1, 2.002]), np.array([1, 2.0]), OutputParity(1e-3, 0.0)),
    "relative": (np.float32([1000.5]), np.array([1000.0]), OutputParity(1e-6, 1e-3)),
    "whole": (np.int64([1, 2]), np.int64([1, 3]), OutputParity(5.0, 5.0)),
    "beyond float64": (np.int64([2**53]), np.int64([2**53 + 1]), OutputParity(5.0, 5.0)),
    "NaN": (np.float32([np.nan]), np.array([np.nan]), OutputParity(1.0, 0.0)),
    "declared NaN": (np.float32([np.nan]), np.array([np.nan]), OutputParity(1.0, 0.0, nan=True)),
    "infinite": (np.float32([-np.inf, 1]), np.array([-np.inf, 1]), OutputParity(1e-3, 1e-3)),
    "infinite and not": (np.float32([np.inf]), np.array([1.0]), OutputParity(1e-3, 0.0)),
    "shape": (np.zeros((1, 2), "f4"), np.zeros((2, 1)), OutputParity(1.0, 0.0)),
    "rounded": (np.float32([1.4, 2.6]), np.array([1.4, 2.4]), OutputParity(0.3, 0.0, decision="round")),
    "rounded, too near": (np.float32([2.6]), np.array([2.4]), OutputParity(0.3, 0.0, decision="round")),
    "rounded, changed": (np.float32([2.65]), np.array([2.3]), OutputParity(0.15, 0.1, decision="round")),
    "best": (np.float32([[0.2, 0.9]]), np.array([[0.3, 0.8]]), OutputParity(0.2, 0.0, decision="argmax")),
    "another best": (np.float32([[0.5, 0.4]]), np.array([[0.4, 0.6]]), OutputParity(0.15, 0.1, decision="argmax")),
    "exact": (np.int64([3, 4]), np.int64([3, 4]), OutputParity(0.0, 0.0, decision="exact")),
    "not exact": (np.int64([3, 5]), np.int64([3, 4]), OutputParity(0.0, 0.0, decision="exact")),
}


def as_object(array: Any) -> dict[str, Any]:
    # JSON has neither NaN nor 64 bits: texts, which the program reads again.
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": [str(value) for value in array.ravel()]}


def test_both_comparisons_give_the_same_verdicts(scripts: Path) -> None:
    program = """
      import { typed } from "./arrays.js";
      import { compare } from "./compare.js";
      const read = (text) => ({ inf: Infinity, "-inf": -Infinity, nan: NaN })[text] ?? Number(text);
      const array = ({ dtype, shape, data }) => {
        const values = typed(dtype, data.length);
        values.set(data.map((text) => (dtype.endsWith("int64") ? BigInt(text) : read(text))));
        return { dtype, shape, data: values };
      };
      const cases = JSON.parse(process.argv[1]);
      const checks = cases.map(([answer, truth, tolerance]) => compare(array(answer), array(truth), tolerance));
      console.log(JSON.stringify(checks));
    """
    given = [
        (as_object(answer), as_object(truth), {"atol": t.atol, "rtol": t.rtol, "decision": t.decision, "nan": t.nan})
        for answer, truth, t in CASES.values()
    ]
    found = run(scripts, program, json.dumps(given))
    expected = [compare(name, *case) for name, case in CASES.items()]
    verdicts = dict(zip(CASES, (one["ok"] for one in found), strict=True))
    assert verdicts == dict(zip(CASES, (check.ok for check in expected), strict=True))
    assert set(verdicts.values()) == {True, False}
    for one, check in zip(found, expected, strict=True):
        if np.isfinite(check.max_abs):
            assert one["maxAbs"] == pytest.approx(check.max_abs)
            assert one["allowed"] == pytest.approx(check.allowed)


@pytest.mark.parametrize("seed", [0, 7, 2**53 - 1, 2**64 - 1], ids=["none", "small", "large", "largest"])
def test_random_numbers_are_those_of_numpy(scripts: Path, seed: int) -> None:
    program = """
      import { PCG64 } from "./random.js";
      const seed = BigInt(process.argv[1]);
      const random = new PCG64(seed);
      console.log(JSON.stringify([Array.from({ length: 5 }, () => random.uniform()), [...new PCG64(seed).floats(7)]]));
    """
    uniform, floats = run(scripts, program, str(seed))
    assert uniform == [number for number, _ in zip(uniform_numbers(seed), range(5), strict=False)]
    assert floats == np.random.default_rng(seed).random(7, dtype=np.float32).tolist()


CALIBRATED = Interval(
    0.8,
    (0.0, 10.0, 50.0),
    (-1.0, 7.0, 32.0),
    (4.0, 14.0, 54.0),
    Measured("utkface", "val", Coverage(0.81, 12.5, 1898), {}),
)


BY_ONE = replace(CALIBRATED, level=0.965, measured=Measured("utkface", "val", Coverage(1.0, 12.5, 1), {}))


@pytest.mark.parametrize("interval", [None, CALIBRATED, BY_ONE], ids=["not calibrated", "calibrated", "on one face"])
def test_the_range_of_an_age_is_that_of_python(scripts: Path, interval: Interval | None) -> None:
    ages = [-3.0, -1.0, 0.0, 3.3, 7.0, 8.1, 14.0, 31.9, 54.0, 60.5]
    program = """
    import { ends, promise } from "./interval.js";
    const [interval, ages] = JSON.parse(process.argv[1]);
    const found = ages.map((age) => ends(interval, { age, low: age - 2, high: age - 1 }));
    const low = found.map((one) => one.low), high = found.map((one) => one.high);
    console.log(JSON.stringify({ promise: promise(interval), low, high }));
    """
    found = run(scripts, program, json.dumps([interval and interval.to_json(), ages]))
    settings = AgeSettings((0.0,), MarginCrop(0.4), Looks(1.0), interval)
    assert found["promise"] == settings.interval_json()
    low, high = (np.subtract(ages, 2), np.array(ages)) if interval is None else interval.ends(ages)
    np.testing.assert_allclose(found["low"], low)
    np.testing.assert_allclose(found["high"], high)
