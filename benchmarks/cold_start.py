"""A fresh process: `edgedl --help`, and from nothing to the first answer, against ONNX Runtime alone.

    python benchmarks/cold_start.py age.edge photo.jpg [--write]

"Alone" means numpy and onnxruntime with the same graphs, a photo that is already pixels, and no checks: import, a
session for each model of the bundle, one run of the detector and of the age network. edgedl also reads and hashes the
bundle, decodes the photo, looks twice and aligns the face. It opens the model for groups once a photo asks for it, so
"needed" is the same without a session for that one. Processes run in turn, one thread per model; figures are medians.
The ratio is one of processor time, which other programs change little; that of elapsed time stands beside it.
Bytecode is cached, as it is once a package is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "cold_start.json"

EDGEDL = """
import sys, edgedl
with edgedl.load(sys.argv[1], threads=1) as age:
    assert age.faces(sys.argv[2])
"""

ALONE = """
import json, sys, numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
with open(f"{sys.argv[1]}/manifest.json") as file:
    models = json.load(file)["models"]
sessions = {name: ort.InferenceSession(f"{sys.argv[1]}/{model['variants']['fp32']['file']}", options,
                                       providers=["CPUExecutionProvider"])
            for name, model in models.items() if name not in sys.argv[3:]}
sessions["faces"].run(None, {"image": np.load(sys.argv[2])})
sessions["age"].run(None, {"face": np.zeros((1, 128, 128, 3), np.uint8)})
"""


def seconds(bytecode: str, *arguments: str) -> tuple[float, float]:
    """Runs a process: its processor time and its elapsed time."""
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1", "PYTHONPYCACHEPREFIX": bytecode}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)
    elapsed, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, elapsed


def medians(rounds: list[tuple[float, float]]) -> dict[str, float]:
    processor, elapsed = (round(statistics.median(values), 3) for values in zip(*rounds, strict=True))
    return {"processor_s": processor, "elapsed_s": elapsed}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="a folder")
    parser.add_argument("photo")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()

    import numpy as np

    from runtime.machine import describe_machine
    from runtime.media.pictures import read_image

    with tempfile.TemporaryDirectory() as folder:
        pixels = str(Path(folder) / "photo.npy")
        np.save(pixels, read_image(args.photo))
        helps, ours, alone, needed = [], [], [], []
        for turn in range(args.rounds + 1):
            times = (
                seconds(folder, "-m", "edgedl", "--help"),
                seconds(folder, "-c", EDGEDL, args.bundle, args.photo),
                seconds(folder, "-c", ALONE, args.bundle, pixels),
                seconds(folder, "-c", ALONE, args.bundle, pixels, "crowd"),
            )
            if turn:  # the first compiles, and reads the files into memory
                for kept, value in zip((helps, ours, alone, needed), times, strict=True):
                    kept.append(value)
    ratio, elapsed, ratio_needed = (
        round(statistics.median(a[kind] / b[kind] for a, b in zip(ours, other, strict=True)), 2)
        for kind, other in ((0, alone), (1, alone), (0, needed))
    )
    help_s = medians(helps)["elapsed_s"]
    result = {
        "help": medians(helps),
        "first_prediction": medians(ours),
        "onnxruntime_alone": medians(alone),
        "onnxruntime_needed": medians(needed),
        "ratio": ratio,
        "ratio_needed": ratio_needed,
        "elapsed_ratio": elapsed,
        "limits": {"help_elapsed_s": 0.2, "ratio": 1.35},
        "ok": help_s <= 0.2 and ratio <= 1.35,
        "machine": describe_machine(),
    }
    print(json.dumps(result, indent=1))
    if args.write:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
