"""Memory of a fresh process that reads or captions a ten-minute 1080p video, and then a hundred short clips.

    python benchmarks/caption_memory.py [caption.edge] [--minutes 10] [--video FILE] [--write]

Without a bundle `read_frames` is measured alone (8 even frames, shorter side at most 448 pixels). With one, its
pipeline opens the video and answers. The video (25 frames a second, a moving pattern) is made first, with OpenCV's own
encoder for MPEG-4; --video names a file to keep it in, which is used again where it exists. The short clips go in as
bytes, as the service gets them. Peak: VmHWM of the process; growth: VmRSS after the hundredth clip less that after the
tenth.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "caption_memory.json"
RATE = 25
MOST_MB, MOST_GROWTH_MB = 400, 5

CHILD = """
import json, re, sys, time
from pathlib import Path
from runtime.machine import peak_memory_mb
from runtime.media.clips import FrameSampling, read_frames

def resident_mb():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\\s*(\\d+)", status)[1]) * 1024 / 1e6

bundle, video, clip = sys.argv[1:]
if bundle:
    from runtime.pipelines import load
    pipeline = load(bundle, threads=1)
    answer = lambda source: [frame["index"] for frame in pipeline.predict(source)["frames"]]
else:
    answer = lambda source: list(read_frames(source, FrameSampling.even(8), shorter=448).indices)
loaded = resident_mb()
begun = time.perf_counter()
frames = answer(Path(video))
seconds = time.perf_counter() - begun
peak = peak_memory_mb()
data, resident = Path(clip).read_bytes(), []
for _ in range(100):
    answer(data)
    resident.append(resident_mb())
print(json.dumps({
    "loaded_mb": round(loaded, 1), "peak_mb": round(peak, 1), "seconds": round(seconds, 1), "frames": frames,
    "resident_after_10_clips_mb": round(resident[9], 1), "resident_after_100_clips_mb": round(resident[99], 1),
    "growth_mb": round(resident[99] - resident[9], 2), "peak_after_clips_mb": round(peak_memory_mb(), 1),
}))
"""


def write_video(path: Path, frames: int, width: int, height: int) -> None:
    """A smooth random pattern that moves to the left, and a square that jumps."""
    import cv2
    import numpy as np

    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (height // 32, (width + 320) // 32, 3)).astype(np.uint8)
    pattern = cv2.resize(coarse, (width + 320, height), interpolation=cv2.INTER_CUBIC)
    part = path.with_name(f"part-{path.name}")
    writer = cv2.VideoWriter(str(part), cv2.VideoWriter_fourcc(*"mp4v"), RATE, (width, height))
    if not writer.isOpened():
        raise SystemExit("this OpenCV has no encoder for MPEG-4")
    side = height // 6
    for index in range(frames):
        frame = np.ascontiguousarray(pattern[:, index % 320 : index % 320 + width])
        left, top = (index * 37) % (width - side), (index * 23) % (height - side)
        frame[top : top + side, left : left + side] = 255 - frame[top : top + side, left : left + side]
        writer.write(frame)
    writer.release()
    part.replace(path)  # a file that is there is a whole one


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", default="")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--video", type=Path, help="where the long video is kept")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()

    from runtime.child import run_python
    from runtime.machine import describe_machine, installed

    frames = round(args.minutes * 60 * RATE)
    with tempfile.TemporaryDirectory() as folder:
        video = args.video or Path(folder) / "long.mp4"
        if not video.exists():
            write_video(video, frames, 1920, 1080)
        clip = Path(folder) / "short.mp4"
        write_video(clip, 2 * RATE, 320, 240)
        done = run_python(CHILD, args.bundle, str(video), str(clip), timeout=3600)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return 1
        measured = json.loads(done.stdout)
        result = {
            "what": f"caption by {Path(args.bundle).name}" if args.bundle else "read_frames alone",
            "video": f"1920×1080, {frames} frames, {video.stat().st_size / 1e6:.0f} MB",
            **measured,
            "limits": {"peak_mb": MOST_MB, "growth_mb": MOST_GROWTH_MB},
            "ok": max(measured["peak_mb"], measured["peak_after_clips_mb"]) <= MOST_MB
            and measured["growth_mb"] <= MOST_GROWTH_MB,
            "machine": describe_machine() | {"opencv": installed("opencv-python-headless"), "av": installed("av")},
        }
    print(json.dumps(result, indent=1))
    if args.write:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
