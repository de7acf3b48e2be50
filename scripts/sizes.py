"""Refuse files over 400 lines and functions over 60: each would be two ideas."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

FILE_LINES, FUNCTION_LINES = 400, 60
ROOT = Path(__file__).resolve().parent.parent


def complaints(path: Path) -> list[str]:
    """What is too long in one Python file."""
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT)
    lines = text.count("\n")
    found = [f"{name}: {lines} lines (at most {FILE_LINES})"] if lines > FILE_LINES else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                found.append(f"{name}: {node.name} has {length} lines (at most {FUNCTION_LINES})")
    return found


def main() -> int:
    """Print every complaint; 1 if there is any."""
    files = [p for folder in ("guided", "scripts", "tests") for p in (ROOT / folder).rglob("*.py")]
    found = [line for path in sorted(files) for line in complaints(path)]
    print("\n".join(found) or f"{len(files)} files are short enough")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
