"""One trained network, exported once, for all tests of the exporter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from exporters.export import ExportedModel, export_model
from tests.exporters.networks import IMAGE, OUTPUTS, SmallClassifier, picture_cases, train_classifier


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def classifier() -> SmallClassifier:
    return train_classifier()


@pytest.fixture(scope="session")
def exported(classifier: SmallClassifier) -> ExportedModel:
    return export_model(classifier, inputs=[IMAGE], outputs=OUTPUTS, cases=picture_cases())
