"""Videos read by PyAV against OpenCV: time of H.264, paired, and memory of the worst clips that are accepted.

    python benchmarks/video_decoding.py [--seconds 10] [--rounds 5] [--write]

The videos (a moving pattern with noise) are made first, by PyAV. Time: eight even frames of each, the shorter side at
most 448 pixels, by `read_frames` and by a loop of OpenCV's `grab` and `retrieve` that does the same; in turn, each in
this process, the smallest of the rounds; of the wall and of the processor. Memory: each clip in a fresh process; VmHWM
and VmRSS, less VmRSS after a small clip.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the encoder's manners are the tests' own

import av
import numpy as np

from runtime.child import run_python
from runtime.machine import describe_machine, installed
from runtime.media.clips import FrameSampling, read_frames
from runtime.media.frames import reduced
from runtime.media.pictures import opencv
from tests.videos import scheduled_as_before

RESULT = Path(__file__).parent / "results" / "video_decoding.json"
RATE, SHORTER, EVEN = 25, 448, FrameSampling.even(8)
MOST_RATIO, MOST_PEAK_MB, MOST_KEPT_MB = 1.2, 600, 100
LARGEST = (3648, 2736)  # just below ten million pixels
UHD = (3840, 2160)
SIXTEEN = {"preset": "ultrafast", "x264-params": "ref=16:bframes=16:b-pyramid=normal:b-adapt=0:keyint=100:level=6.2"}

# name: container, encoder, pixels, size, frames, options
WORST = {
    "H.264, 16 references": ("mp4", "libx264", "yuv420p", LARGEST, 36, SIXTEEN),
    "H.264 10 bit, 16 references": ("mp4", "libx264", "yuv420p10le", UHD, 36, SIXTEEN),
    "HEVC 10 bit": ("mp4", "libx265", "yuv420p10le", UHD, 24, {"preset": "ultrafast", "x265-params": "log-level=none"}),
    "AV1 10 bit": ("matroska", "libsvtav1", "yuv420p10le", LARGEST, 24, {"preset": "12"}),
    "VP9": ("webm", "libvpx-vp9", "yuv420p", LARGEST, 16, {"deadline": "realtime", "cpu-used": "8"}),
    "FFV1 16 bit": ("matroska", "ffv1", "gbrp16le", LARGEST, 8, {}),
    "ProRes 4444": ("mov", "prores_ks", "yuva444p10le", LARGEST, 16, {"profile": "4"}),
    "PNG 64 bit": ("mov", "png", "rgba64be", LARGEST, 6, {}),
    "Motion JPEG 4:4:4": ("avi", "mjpeg", "yuvj444p", LARGEST, 16, {}),
    "APNG": ("apng", "apng", "rgba", LARGEST, 6, {}),
}

CHILD = """
import json, re, sys
from pathlib import Path
from runtime.errors import InputError
from runtime.media.clips import FrameSampling, read_frames

def mb(name):
    return int(re.search(name + r":\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024 / 1e6

small, large = sys.argv[1:]
for _ in range(2):
    read_frames(small, FrameSampling.even(8), shorter=448)
idle = mb("VmRSS")
frames = read_frames(Path(large).read_bytes(), FrameSampling.even(8), shorter=448)
del frames
print(json.dumps({"peak_mb": round(mb("VmHWM") - idle), "kept_mb": round(mb("VmRSS") - idle)}))
"""


def write_video(path: Path, kind: tuple, noise: int = 0) -> None:
    container, encoder, pixels, (width, height), frames, options = kind
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (height // 32 + 1, (width + 320) // 32 + 1, 3)).astype(np.uint8)
    pattern = opencv().resize(coarse, (width + 320, height), interpolation=opencv().INTER_CUBIC)
    grain = random.integers(0, noise + 1, (height, width, 3)).astype(np.uint8)
    with scheduled_as_before(), av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(encoder, rate=Fraction(RATE), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        for index in range(frames):
            picture = pattern[:, 4 * index % 320 :][:, :width]
            picture = (
                np.ascontiguousarray(picture) if noise == 0 else opencv().add(picture, np.roll(grain, 97 * index, 0))
            )
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pixels)))
        output.mux(stream.encode(None))


def by_opencv(path: Path) -> None:
    """What `read_frames` did before: all frames are grabbed, those that are taken retrieved, reduced and swapped."""
    cv2 = opencv()
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 4])
    wanted = EVEN.indices(int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
    taken, index = [], 0
    while video.grab():
        if index in wanted:
            taken.append(cv2.cvtColor(reduced(video.retrieve()[1], SHORTER), cv2.COLOR_BGR2RGB))
        index += 1
    assert len(taken) == 8


def speed(path: Path, rounds: int) -> dict[str, float]:
    ways = {"opencv": lambda: by_opencv(path), "pyav": lambda: read_frames(path, EVEN, shorter=SHORTER)}
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            wall, processor = time.perf_counter(), time.process_time()
            way()
            measured[name].append((time.perf_counter() - wall, time.process_time() - processor))
    best = {
        f"{name}_{kind}_s": round(min(t[k] for t in times), 3)
        for name, times in measured.items()
        for k, kind in enumerate(("wall", "processor"))
    }
    return best | {kind: round(best[f"pyav_{kind}_s"] / best[f"opencv_{kind}_s"], 3) for kind in ("wall", "processor")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="length of the H.264 videos")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    speeds, memory = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.mp4"
        write_video(small, ("mp4", "libx264", "yuv420p", (320, 240), 50, {}))
        for size in ((1280, 720), (1920, 1080)):
            path = Path(folder) / f"{size[1]}.mp4"
            write_video(path, ("mp4", "libx264", "yuv420p", size, round(args.seconds * RATE), {"crf": "26"}), noise=24)
            speeds[f"H.264 {size[0]}×{size[1]}"] = speed(path, args.rounds)
            print(path.name, speeds[f"H.264 {size[0]}×{size[1]}"], file=sys.stderr, flush=True)
        for name, kind in WORST.items():
            path = Path(folder) / "worst"
            write_video(path, kind)
            done = run_python(CHILD, str(small), str(path), timeout=600)
            memory[name] = json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr.strip()[-200:]}
            print(name, memory[name], file=sys.stderr, flush=True)
    result = {
        "what": "read_frames, 8 even frames, shorter side at most 448 pixels",
        "speed": speeds,
        "memory_over_idle": memory,
        "limits": {"ratio": MOST_RATIO, "peak_mb": MOST_PEAK_MB, "kept_mb": MOST_KEPT_MB},
        "ok": all(one["processor"] <= MOST_RATIO for one in speeds.values())
        and all(one.get("peak_mb", 1e9) <= MOST_PEAK_MB and one["kept_mb"] <= MOST_KEPT_MB for one in memory.values()),
        "machine": describe_machine() | {"opencv": installed("opencv-python-headless"), "av": installed("av")},
    }
    print(json.dumps(result, indent=1, ensure_ascii=False))
    if args.write:
        RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
