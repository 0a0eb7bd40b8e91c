"""What docs/service.md says of the protocol: its commands run, and its routes are those that there are."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import orjson
import pytest

from service.app import create_app
from tests.service.fake_pipeline import FakePipeline
from tests.service.test_service_docs import run, serving
from tests.timers import write_timer_bundle

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "service.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("## Open Inference Protocol") : PAGE.index("## Routes")]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands(tmp_path: Path) -> None:
    graph, pipeline = re.findall(r"```bash\n(.*?)```", SECTION, re.DOTALL)
    (shown,) = re.findall(r"```json\n(.*?)```", SECTION, re.DOTALL)
    with serving(create_app([write_timer_bundle(tmp_path / "timer.edge"), FakePipeline()], threads=1)) as url:
        assert orjson.loads(run(graph, url, tmp_path)) == orjson.loads(shown)
        (output,) = orjson.loads(run(pipeline, url, tmp_path))["outputs"]
    (result,) = map(orjson.loads, output["data"])
    assert [len(face["probabilities"]) for face in result["faces"]] == [81, 81]


def test_every_route_is_in_the_table() -> None:
    table = SECTION[SECTION.index("| route |") :].split("\n\n")[0]
    told = set(re.findall(r"`(/v2\S*)`", table)) | {"/v2/repository/models/NAME/unload"}
    app = create_app([FakePipeline()])
    there = {rule.rule for rule in app.url_map.iter_rules() if rule.rule.startswith("/v2")}
    plain = {path for path in there if "/versions/" not in path}
    assert {path.replace("models/M", "models/<name>").replace("NAME", "<name>") for path in told} == plain
    for path in plain:
        assert not path.startswith("/v2/models/<name>") or f"/v2/models/<name>/versions/<version>{path[17:]}" in there
