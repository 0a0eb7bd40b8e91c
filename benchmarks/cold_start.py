"""A fresh process: `edgedl --help`, and from nothing to the first answer, against ONNX Runtime alone.

    python benchmarks/cold_start.py age.edge photo.jpg [--write]

"Alone" means numpy and onnxruntime with the same two graphs, a photo that is already pixels, and no checks: import, two
sessions, one run of each. edgedl also reads and hashes the bundle, decodes the photo, looks twice and aligns the face.
Processes run in turn, one thread per model; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
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
import sys, numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
faces, age = (ort.InferenceSession(f"{sys.argv[1]}/{name}.onnx", options, providers=["CPUExecutionProvider"])
              for name in ("faces", "age"))
faces.run(None, {"image": np.load(sys.argv[2])})
age.run(None, {"face": np.zeros((1, 128, 128, 3), np.uint8)})
"""


def seconds(*arguments: str) -> float:
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


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
        helps, ours, alone = [], [], []
        for turn in range(args.rounds + 1):
            times = (
                seconds("-m", "edgedl", "--help"),
                seconds("-c", EDGEDL, args.bundle, args.photo),
                seconds("-c", ALONE, args.bundle, pixels),
            )
            if turn:  # the first reads the files into memory
                for kept, value in zip((helps, ours, alone), times, strict=True):
                    kept.append(value)
    ratio = statistics.median(a / b for a, b in zip(ours, alone, strict=True))
    result = {
        "help_s": round(statistics.median(helps), 3),
        "first_prediction_s": round(statistics.median(ours), 3),
        "onnxruntime_alone_s": round(statistics.median(alone), 3),
        "ratio": round(ratio, 2),
        "limits": {"help_s": 0.2, "ratio": 2.0},
        "ok": statistics.median(helps) <= 0.2 and ratio <= 2.0,
        "machine": describe_machine(),
    }
    print(json.dumps(result, indent=1))
    if args.write:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
