"""Every code block of README.md and docs/ runs, and prints what the page says it prints.

The blocks of a page run in order in one empty folder. ``python`` and ``bash`` blocks have to succeed; in a ``console``
block each ``$ command`` is run and its output compared with the lines below it, where a line ``…`` stands for any lines
and an ``…`` inside a line for any text. Without lines below, the output may be anything. A comment before a block says
what else is to be done:

    <!-- docs: not run, because REASON -->      the reason is mandatory
    <!-- docs: slow -->                         runs with `make test-slow` only
    <!-- docs: exit 1 -->                       this exit status is expected
    <!-- docs: output -->                       a text block: what the block before it printed
    <!-- docs: file NAME -->                    write the block to this file instead of running it
    <!-- docs: into NAME after TEXT -->         insert the block into this file, below the line TEXT

CONTRIBUTING.md is followed by `tests/test_contributing.py`, in a copy of the packages.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.preloaded import Preloaded

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROSE = [*PAGES, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md"))]
RUN = ("bash", "console", "python")
# Languages of blocks that show something rather than do something.
SHOWN = (
    "",
    "c",
    "cpp",
    "html",
    "ini",
    "javascript",
    "json",
    "text",
    "toml",
    "yaml",
    "{eval-rst}",
    "{include}",
    "{toctree}",
)
TIMEOUT_S = 600

pytestmark = pytest.mark.xdist_group("preloaded")  # with the notebooks

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*)\s*$")
COMMENT = re.compile(r"^\s*<!-- docs: (?P<text>.*?) -->\s*$")
ORDER = re.compile(
    r"not run, because (?P<reason>\S.{9,})|(?P<slow>slow)|exit (?P<exit>\d+)|(?P<output>output)"
    r"|file (?P<file>[\w./-]+)|into (?P<into>[\w./-]+) after (?P<after>\S.*)"
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block and what the comment before it orders."""

    line: int
    language: str
    code: str
    order: str = ""

    def ordered(self, name: str) -> str | None:
        match = ORDER.fullmatch(self.order)
        return match[name] if match else None


def blocks(text: str) -> Iterator[Block]:
    lines = text.splitlines()
    order, start = "", None
    for number, line in enumerate(lines, 1):
        fence = FENCE.match(line)
        if start is not None:
            opening, indent, language = start
            if fence and not fence["language"]:
                code = "\n".join(item.removeprefix(indent) for item in lines[opening : number - 1])
                yield Block(opening, language, code, order)
                order, start = "", None
        elif fence:
            start = (number, fence["indent"], fence["language"])
        elif comment := COMMENT.match(line):
            order = comment["text"]
            if not ORDER.fullmatch(order):
                raise ValueError(f"line {number}: `{order}` is no order that this test knows (is the reason missing?)")
        elif line.strip():
            order = ""  # an order stands directly before its block
    if start is not None:
        raise ValueError(f"line {start[0]}: the block does not end")


def commands(code: str) -> list[tuple[str, str | None]]:
    """The commands of a console block, each with the output below it."""
    found: list[tuple[str, list[str]]] = []
    for line in code.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found and found[-1][0].endswith("\\"):
            found[-1] = (f"{found[-1][0]}\n{line.removeprefix('> ')}", [])
        elif found:
            found[-1][1].append(line)
        else:
            raise ValueError(f"a console block begins with `$ command`, not with `{line}`")
    return [(command, "\n".join(output).strip("\n") or None) for command, output in found]


def printed_as_said(said: str, printed: str) -> bool:
    parts = []
    for line in said.strip("\n").splitlines():
        if line.strip() == "…":
            parts.append(r"(?:[^\n]*\n)*")
        else:
            parts.append(".*?".join(re.escape(part) for part in line.rstrip().split("…")) + r"[ \t]*\n")
    return re.fullmatch("".join(parts), printed.strip("\n") + "\n") is not None


class Reader:
    """Someone who types in what a page says, in a folder of their own."""

    def __init__(self, page: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.page, self.folder, self.environment = page, folder, environment
        self.printed = ""

    def read(self, block: Block) -> None:
        where = f"{self.page}, line {block.line}"
        status = int(block.ordered("exit") or 0)
        if block.ordered("output"):
            assert printed_as_said(block.code, self.printed), f"{where}: printed was\n{self.printed}"
        elif name := block.ordered("file"):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(block.code + "\n")
        elif name := block.ordered("into"):
            self.insert(self.folder / name, str(block.ordered("after")), block.code, where)
        elif block.language == "python":
            self.run(["python", "-c", block.code], status, where)
        elif block.language == "bash":
            self.run(["bash", "-euo", "pipefail", "-c", block.code], status, where)
        elif block.language == "console":
            for command, said in commands(block.code):
                self.run(["bash", "-c", command], status, f"{where}: {command}")
                assert said is None or printed_as_said(said, self.printed), f"{where}: printed was\n{self.printed}"

    def insert(self, file: Path, after: str, code: str, where: str) -> None:
        text = file.read_text()
        assert text.count(f"{after}\n") == 1, f"{where}: {file} has not one line `{after}`"
        file.write_text(text.replace(f"{after}\n", f"{after}\n{code}\n"))

    def run(self, command: list[str], status: int, where: str) -> None:
        done = subprocess.run(
            [shutil.which(command[0], path=self.environment["PATH"]) or command[0], *command[1:]],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == status, f"{where}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
        self.printed = done.stdout


def read(page: Path, folder: Path, environment: Mapping[str, str], *, slow: bool = False) -> None:
    reader = Reader(page.name, folder, environment)
    left_out = False
    for block in blocks(page.read_text(encoding="utf-8")):
        if not block.ordered("output"):  # which belongs to the block before
            left_out = bool(block.ordered("reason") or (block.ordered("slow") and not slow))
        if not left_out:
            reader.read(block)


@pytest.fixture
def environment(preloaded: Preloaded) -> Mapping[str, str]:
    """Where `edgedl` and `python` are this very tree's, whatever else is installed."""
    return preloaded.environment


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_blocks_of_the_page_run(page, tmp_path, environment):
    read(page, tmp_path, environment)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if "<!-- docs: slow -->" in page.read_text("utf-8")], ids=name_of
)
def test_the_slow_blocks_of_the_page_run_too(page, tmp_path, environment):
    read(page, tmp_path, environment, slow=True)


@pytest.mark.parametrize("page", PROSE, ids=name_of)
def test_the_languages_are_known(page):
    for block in blocks(page.read_text(encoding="utf-8")):
        assert block.language in RUN + SHOWN, f"{page.name}, line {block.line}: `{block.language}`"


@pytest.mark.parametrize("page", PROSE, ids=name_of)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


DECISIONS = [page for page in PAGES if page.parent.name == "decisions" and page.name != "index.md"]


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_has_its_form(page):
    text = page.read_text(encoding="utf-8")
    assert re.search(r"^Status: (accepted|superseded) .*\d{4}-\d\d-\d\d", text, re.MULTILINE), "Status: accepted · DATE"
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Choice", "Evidence"]


WRONG = {
    "python that fails": "```python\nraise SystemExit(3)\n```",
    "bash that fails in the middle": "```bash\nfalse\ntrue\n```",
    "a command that fails": "```console\n$ false\n```",
    "another output": "```console\n$ echo one\ntwo\n```",
    "a line too many": "```console\n$ printf 'one\\ntwo\\n'\none\n```",
    "another output of python": "```python\nprint(1)\n```\n\n<!-- docs: output -->\n```text\n2\n```",
    "another exit status": "<!-- docs: exit 1 -->\n```bash\nexit 2\n```",
    "no exit status": "<!-- docs: exit 1 -->\n```bash\ntrue\n```",
    "a line that is not there": "<!-- docs: into page.md after three -->\n```python\nx\n```",
}
RIGHT = {
    "a wildcard": "```console\n$ echo one 2.34 three\none … three\n$ printf '1\\n2\\n3\\n'\n1\n…\n```",
    "commands over two lines": "```console\n$ echo one \\\n  two\none two\n```",
    "files": "<!-- docs: file a.py -->\n```python\nprint(3)\n```\n\n```console\n$ python a.py\n3\n```",
    "lines in a file": "<!-- docs: file a/b -->\n```text\none\nthree\n```\n\n<!-- docs: into a/b after one -->\n"
    "```text\ntwo\n```\n\n```console\n$ cat a/b\none\ntwo\nthree\n```",
    "another program of python": "```console\n$ python -m this | head -1\nThe Zen of Python, …\n```",
    "arguments of python": "```console\n$ python -c 'import sys; print(sys.argv)' 'one two'\n['-c', 'one two']\n```",
    "standard input": "```console\n$ echo one | python -c 'print(input())'\none\n```",
    "not run": "<!-- docs: not run, because it would fail -->\n```bash\nfalse\n```",
    "slow": "<!-- docs: slow -->\n```bash\nfalse\n```",
    "exit status": "<!-- docs: exit 3 -->\n```python\nraise SystemExit(3)\n```",
    "output of python": "```python\nprint(1.25)\n```\n\n<!-- docs: output -->\n```text\n1.…\n```",
    "one folder": "```bash\ntouch here\n```\n- item\n  ```bash\n  test -f here\n  ```",
    "this tree": "```console\n$ edgedl --version\nedgedl …\n```",
    "shown": "```text\nfalse\n```",
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_page_fails(text, tmp_path, environment):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(AssertionError):
        read(page, tmp_path, environment)


@pytest.mark.parametrize("text", RIGHT.values(), ids=RIGHT.keys())
def test_a_right_page_passes(text, tmp_path, environment):
    page = tmp_path / "page.md"
    page.write_text(text)
    read(page, tmp_path, environment)


@pytest.mark.parametrize("order", ["not run", "not run, because", "later", "exit"])
def test_an_order_without_a_reason_or_sense_is_refused(order):
    with pytest.raises(ValueError, match="no order that this test knows"):
        list(blocks(f"<!-- docs: {order} -->\n```bash\nfalse\n```"))


def test_a_block_without_an_end_is_refused():
    with pytest.raises(ValueError, match="does not end"):
        list(blocks("```bash\ntrue\n"))
