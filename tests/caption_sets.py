"""Caption data sets in miniature: what several tests of the formats share."""

from __future__ import annotations

import json

import cv2
import numpy as np

from edgedl.tasks.caption.data.captions import CaptionDataset


def jpeg(level: int) -> bytes:
    return cv2.imencode(".jpg", np.full((6, 8, 3), level, np.uint8))[1].tobytes()


def of(dataset: CaptionDataset) -> dict[str, tuple[str | None, tuple[str, ...]]]:
    """Each clip's split and captions."""
    return {clip.name: (clip.split, clip.captions) for clip in dataset.clips}


def coco(photos: dict[int, str], captions: list[tuple[object, object]]) -> bytes:
    return json.dumps(
        {
            "info": {"year": 2017},
            "licenses": [],
            "images": [
                {"license": 4, "file_name": name, "height": 6, "width": 8, "id": number}
                for number, name in photos.items()
            ],
            "annotations": [
                {"image_id": number, "id": i, "caption": text} for i, (number, text) in enumerate(captions)
            ],
        }
    ).encode()


FLICKR_CAPTIONS = (
    b"1_a.jpg#0\tA child in a pink dress .\n"
    b"1_a.jpg#1\tA girl  going into a building .\n"
    b"2_b.jpg#0\tA black dog\n"
    b"3_c.jpg#0\tTwo men , one hat .\r\n"
    b"4_d.jpg#0\tOn none of the lists .\n"
    b"5_e.jpg#0\tTwo dogs\n"
    b"2258277193_586949ec62.jpg.1#0\tpeople waiting for the subway\n"  # the original has this one
    b"no tab at all\n"
    b"2_b.jpg#1\t !\n"
    b"2_b.jpg#2\t\xff\xfe\n"
    b"\n"
)
FLICKR = {
    "Flickr8k.token.txt": FLICKR_CAPTIONS,
    "Flickr8k.lemma.token.txt": FLICKR_CAPTIONS.replace(b"going", b"go"),
    "Flickr_8k.trainImages.txt": b"1_a.jpg\n5_e.jpg\ngone.jpg\n",
    "Flickr_8k.devImages.txt": b"2_b.jpg\r\n",
    "Flickr_8k.testImages.txt": b"3_c.jpg\n1_a.jpg\n",
    "ExpertAnnotations.txt": b"1_a.jpg\t2_b.jpg#2\t1\t1\t1\n",
    "readme.txt": b"hello\n",
}
FLICKR_PHOTOS = {
    f"Flicker8k_Dataset/{name}": jpeg(40 * i)
    for i, name in enumerate(("1_a.jpg", "2_b.jpg", "3_c.jpg", "4_d.jpg", "5_e.jpg"))
}
