"""An export with torch's tables made once is the export that a user gets."""

from __future__ import annotations

import pytest

from exporters.export import ExportedModel, export_model
from tests.exporters.networks import IMAGE, OUTPUTS, SmallClassifier, picture_cases
from tests.torch_tables import REPLACED


def test_a_graph_is_the_same_with_tables_of_its_own(
    classifier: SmallClassifier, exported: ExportedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(REPLACED) == 7
    for holder, name, original in REPLACED:
        monkeypatch.setattr(holder, name, original)
    alone = export_model(classifier, inputs=[IMAGE], outputs=OUTPUTS, cases=picture_cases())
    assert alone.graph == exported.graph
