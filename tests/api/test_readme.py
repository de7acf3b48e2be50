"""The README's code runs: python blocks as they stand, ``guided`` lines as command lines."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from guided.errors import MissingWeights

pytestmark = pytest.mark.usefixtures("shared_models")

README = Path(__file__).resolve().parents[2] / "README.md"
_BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```\s*$", re.DOTALL | re.MULTILINE)
#: A block whose opening line says so is shown, not run: ```python no-run
_NOT_RUN = re.compile(r"^```\w+ no-run", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its code and the line it begins at."""

    language: str
    code: str
    line: int


def blocks_of(text: str) -> list[Block]:
    """The python and sh blocks of a Markdown text that are to be run."""
    return [
        Block(match[1], match[2], text.count("\n", 0, match.start()) + 1)
        for match in _BLOCK.finditer(text)
        if match[1] in ("python", "sh", "bash") and not _NOT_RUN.match(match[0])
    ]


def commands_of(code: str) -> list[list[str]]:
    """The ``guided`` command lines of a shell block, as words; other lines are left out."""
    joined = re.sub(r"\\\n\s*", " ", code)
    lines = [line.strip().removeprefix("$ ") for line in joined.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines if line.startswith("guided ")]
    return [line[1 : line.index("|")] if "|" in line else line[1:] for line in words]


BLOCKS = blocks_of(README.read_text(encoding="utf-8")) if README.is_file() else []


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all blocks, so that a later block finds what an earlier one made."""
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def names() -> dict[str, object]:
    """One namespace for all python blocks, as for somebody who reads and types along."""
    return {"__name__": "readme"}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"line-{block.line}")
def test_a_readme_block_runs(
    block: Block,
    workplace: Path,
    names: dict[str, object],
    guided_cli: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(workplace)
    if block.language == "python":
        code = compile("\n" * block.line + block.code, str(README), "exec")
        try:
            exec(code, names)
        except MissingWeights as error:
            pytest.skip(f"README line {block.line}: {error}")
        return
    for words in commands_of(block.code):
        said = guided_cli(*words)
        if "is not on this computer" in said.err:
            pytest.skip(f"README line {block.line}: {said.err}")
        assert said.status == 0, f"guided {shlex.join(words)}\n{said.err}"


def test_blocks_and_commands_are_found() -> None:
    text = (
        "# T\n```python\nx = 1\n```\ntext\n```sh\npip install guided\n$ guided a \\\n  'b c' # d\n"
        "guided e | jq .x\npython x.py\n```\n```python no-run\nboom\n```\n```toml\na = 1\n```\n"
    )
    python, shell = blocks_of(text)
    assert (python.language, python.code, python.line) == ("python", "x = 1\n", 2)
    assert commands_of(shell.code) == [["a", "b c"], ["e"]]
