"""MSR-VTT: 10,000 video clips with 20 captions each (Xu et al. 2016).

One or more JSON files, e.g. ``train_val_videodatainfo.json`` and ``test_videodatainfo.json`` or ``MSRVTT_data.json``:
{"videos": [{"video_id": "video0", "split": "train", …}], "sentences": [{"video_id": "video0", "caption", …}]}; the
clips are called ``video0.mp4``. The split "validate" is called val here.
"""

from __future__ import annotations

from edgedl.data.sources import Source
from edgedl.tasks.caption.data.annotations import Gathering, candidates, json_object
from edgedl.tasks.caption.data.captioned_clips import CaptionDataset
from edgedl.tasks.caption.data.media_files import MediaFiles
from runtime.errors import InputError
from runtime.media.clips import VIDEO_SUFFIXES

NAME = "msr-vtt"
EXPECTED = (
    "train_val_videodatainfo.json, test_videodatainfo.json, … with videos and sentences, and the clips video0.mp4 …"
)
SPLITS = {"train": "train", "validate": "val", "val": "val", "test": "test"}


def recognises(source: Source) -> bool:
    """Whether a file of such captions is there."""
    return bool(_captions(source))


def load(source: Source) -> CaptionDataset:
    """Read the annotation files.

    Raises:
        InputError: no captions are there, or none of their clips, or a file is damaged.
    """
    found = _captions(source)
    if not found:
        raise InputError(f"{source.path} holds no captions of MSR-VTT; expected {EXPECTED}; give the folder of both")
    gathering, clips = Gathering(), MediaFiles(source, VIDEO_SUFFIXES, by_stem=True)
    assigned = []
    for member in found:
        document = json_object(source, member, ("videos", "sentences"))
        before = set(gathering.captions)
        for sentence in document["sentences"]:
            video = sentence.get("video_id")
            if not isinstance(video, str):
                gathering.skip("the sentence lacks its video_id")
            elif video in before:
                gathering.skip("the video has captions in another file already")
            else:
                gathering.add(video, sentence.get("caption"))
        for entry in document["videos"]:
            video, split = entry.get("video_id"), entry.get("split")
            if isinstance(video, str) and isinstance(split, str) and split in SPLITS:
                assigned.append((video, SPLITS[split]))
    gathering.assign(assigned)
    for video in gathering.captions:
        gathering.locate(video, clips.find(video))
    return gathering.dataset(NAME, source)


def _captions(source: Source) -> tuple[str, ...]:
    return candidates(source, {".json"}, lambda head: b'"video_id"' in head)
