"""Memory of `edgedl serve` for the worst picture, array, JSON and clip that it accepts.

    python benchmarks/request_memory.py AGE.edge TIMER.edge CAPTION.edge [--write]

Each request is sent three times. Peak: the highest resident memory of the worker during it, above what it was before.
Kept: what is left of that afterwards. The limits are 600 and 100 MB. A status of 413 is a refusal before any work.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the files are made with what the tests have

import numpy as np
from PIL import Image

from benchmarks.video_decoding import WORST, write_video
from runtime.machine import describe_machine, installed
from tests.pictures import chunk, encode, png, with_orientation

RESULT = Path(__file__).parent / "results" / "request_memory.json"
MOST_PEAK_MB, MOST_KEPT_MB, MOST_BYTES = 600, 100, 32 << 20


def packed(rows: int, row_bytes: int) -> bytes:
    """Compressed rows of zeros, each with its filter."""
    compressor = zlib.compressobj(9)
    return b"".join([*(compressor.compress(bytes(row_bytes + 1)) for _ in range(rows)), compressor.flush()])


def pictures() -> dict[str, bytes]:
    """Near the limits of pixels and memory: 50 megapixels, nine bytes each."""
    turned = chunk(b"eXIf", with_orientation(6).removeprefix(b"Exif\0\0"))
    noise = np.random.default_rng(0).integers(0, 256, (700, 1000, 3)).astype(np.uint8)
    photo = Image.fromarray(np.tile(noise, (10, 7, 1)))  # 49 megapixels
    phone = photo.resize((16320, 12240), Image.Resampling.NEAREST)  # 200 megapixels
    return {
        "PNG, 16 bits and alpha, turned": png(
            5200, 5300, b"", depth=16, colour=6, packed=packed(5300, 5200 * 8), before=turned
        ),
        "PNG, 16 bits": png(6000, 6100, b"", depth=16, packed=packed(6100, 6000 * 6)),
        "PNG with alpha, turned": png(7000, 7100, b"", colour=6, packed=packed(7100, 7000 * 4), before=turned),
        "GIF": encode(Image.new("P", (5700, 5700)), "GIF"),
        "WebP": encode(photo.resize((5000, 4900)), "WEBP", quality=30),
        "JPEG, 49 megapixels": encode(photo, quality=30),
        "JPEG, 49 megapixels, in passes": encode(photo, quality=20, progressive=True, subsampling=0),
        "JPEG, CMYK, in passes": encode(photo.convert("CMYK"), quality=10, progressive=True),
        "JPEG, 200 megapixels": encode(phone, quality=10),
    }


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def arrays() -> dict[str, tuple[str, bytes]]:
    """As large as a request may be: one long row, many rows, lists of numbers, and lists of nothing."""
    steps = (MOST_BYTES - 256) // 8
    chance = np.random.default_rng(0)
    binary, text = "application/x-npy", "application/json"
    return {
        "npy, one row": (binary, npy(chance.random((1, steps, 2), np.float32))),
        "npy, rows of one step": (binary, npy(chance.random((steps, 1, 2), np.float32))),
        "JSON of numbers": (text, ('{"inputs": {"u": [[' + ",".join(["[0,1]"] * 600_000) + "]]}}").encode()),
        "JSON of empty lists": (text, ('{"inputs": {"u": [' + ",".join(["[]"] * 1_300_000) + "]}}").encode()),
        "JSON, 32 MiB": (text, ('{"inputs": {"u": [[' + ",".join(["[0,1]"] * 5_500_000) + "]]}}").encode()),
    }


def clips() -> dict[str, bytes]:
    """The worst of each codec, as far as a request holds it."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in WORST.items():
            path = Path(folder) / "clip"
            write_video(path, kind)
            if path.stat().st_size <= MOST_BYTES:
                found[name] = path.read_bytes()
    return found


class Service:
    """`edgedl serve` in a process of its own, and its worker's memory."""

    def __init__(self, bundles: list[str]) -> None:
        command = [sys.executable, "-m", "edgedl", "serve", *bundles, "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])
        pid = self.process.pid
        self.worker = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
        self.names = [one["name"] for one in json.loads(self.ask("GET", "/v1")[1])["bundles"]]

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.request(method, path, body, {"Content-Type": kind} if kind else {})
        response = connection.getresponse()
        answer = response.status, response.read()
        connection.close()
        return answer

    def megabytes(self, name: str) -> float:
        lines = Path(f"/proc/{self.worker}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(name))

    def measure(self, name: str, kind: str, body: bytes) -> dict[str, float]:
        idle = self.megabytes("VmRSS")
        Path(f"/proc/{self.worker}/clear_refs").write_text("5")  # the peak is counted from now on
        start = time.perf_counter()
        statuses = {self.ask("POST", f"/v1/{name}", body, kind)[0] for _ in range(3)}
        seconds = (time.perf_counter() - start) / 3
        time.sleep(0.5)  # the answer is there before the memory is given back
        return {
            "status": statuses.pop() if len(statuses) == 1 else -1,
            "bytes": len(body),
            "seconds": round(seconds, 2),
            "peak_mb": round(self.megabytes("VmHWM") - idle),
            "kept_mb": round(self.megabytes("VmRSS") - idle),
        }

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("age")
    parser.add_argument("timer")
    parser.add_argument("caption")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    service, found = Service([args.age, args.timer, args.caption]), {}
    age, timer, caption = service.names
    try:
        small = encode(Image.new("RGB", (64, 64)))
        service.measure(age, "image/jpeg", small)
        service.measure(timer, "application/x-npy", npy(np.zeros((1, 2, 2), np.float32)))
        service.measure(caption, "image/jpeg", small)
        todo = [(name, age, "image/jpeg", body) for name, body in pictures().items()]
        todo += [(name, timer, kind, body) for name, (kind, body) in arrays().items()]
        todo += [(f"clip, {name}", caption, "video/mp4", body) for name, body in clips().items()]
        first = service.megabytes("VmRSS")
        for name, bundle, kind, body in todo:
            found[name] = service.measure(bundle, kind, body)
            print(name, found[name], file=sys.stderr, flush=True)
        left = round(service.megabytes("VmRSS") - first)
    finally:
        service.stop()
    result = {
        "what": "edgedl serve, each request three times: resident memory of the worker over what it was before",
        "requests": found,
        "kept_after_all_mb": left,
        "limits": {"peak_mb": MOST_PEAK_MB, "kept_mb": MOST_KEPT_MB},
        "ok": left <= MOST_KEPT_MB
        and all(one["peak_mb"] <= MOST_PEAK_MB and one["kept_mb"] <= MOST_KEPT_MB for one in found.values()),
        "machine": describe_machine()
        | {name: installed(name) for name in ("opencv-python-headless", "av", "onnxruntime")},
    }
    print(json.dumps(result, indent=1))
    if args.write:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
