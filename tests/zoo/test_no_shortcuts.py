"""Nothing in the package loads or runs what it should not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import guided

ROOT = Path(guided.__file__).parent
FORBIDDEN: dict[str, set[str]] = {
    r"weights_only\s*=\s*False": set(),
    r"\bpickle\.loads?\(": set(),
    r"\bpickle\.Unpickler\b|\b_?pickle import .*Unpickler\b": {"zoo/nvidia.py"},
    r"(?<![\w.])eval\(": set(),
    r"(?<![\w.])exec\(": set(),
    r"\byaml\.load\(": set(),
    r"trust_remote_code\s*=\s*True": set(),
    r"allow_pickle\s*=\s*True": set(),
    r"\bmarshal\b|\bdill\b|\bcloudpickle\b|\bjoblib\b": set(),
}


def lines_with(pattern: str) -> set[str]:
    found = set()
    for file in ROOT.rglob("*.py"):
        for line in file.read_text(encoding="utf-8").splitlines():
            if re.search(pattern, line) and not line.lstrip().startswith(("#", '"', "'")):
                found.add(file.relative_to(ROOT).as_posix())
    return found


@pytest.mark.parametrize("pattern", sorted(FORBIDDEN))
def test_forbidden_calls_are_absent(pattern: str) -> None:
    assert lines_with(pattern) == FORBIDDEN[pattern]


def test_torch_load_always_says_weights_only() -> None:
    for file in ROOT.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for call in re.finditer(r"torch\.load\(", text):
            rest = text[call.end() : call.end() + 200]
            assert "weights_only=True" in rest.split("\n\n")[0], file
