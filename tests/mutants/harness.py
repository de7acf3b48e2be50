"""Mutants: one expression or statement of a module is exchanged, and its tests must notice.

A mutant is found by the qualified name of a function or class and by a piece of source, compared as
syntax trees, so that layout, comments and line numbers do not matter.  The changed module is served
to a fresh process by an import hook; no file of the package is written.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import multiprocessing
import os
import sys
import textwrap
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: What tests import and no mutant changes, loaded once for all of them.
PRELOADED = [
    "pytest", "hypothesis", "numpy", "PIL.Image", "torch", "torchvision", "open_clip",
    "safetensors.torch", "transformers.models.gpt2.modeling_gpt2",
    "diffusers.models.unets.unet_2d_condition", "diffusers.pipelines.pipeline_utils",
    "diffusers.schedulers.scheduling_ddim",
]  # fmt: skip
LIMIT = 180.0
#: How a process ends: as pytest does, or because it could not run the tests at all.
PASSED, CAUGHT, BROKEN = 0, 1, 70
OPTIONS = [
    "-x", "-q", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist",
    "-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning",
]  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """Within ``where`` of ``module`` the one place that reads ``old`` becomes ``new``.

    ``where`` is a qualified name such as "Clip.bind", or "" for the whole module; ``old`` and
    ``new`` are both expressions or both statements (of one body, in a row).  ``tests`` are pytest's
    arguments.  ``equivalent`` says why no test can notice, where that is so.
    """

    module: str
    where: str
    old: str
    new: str
    tests: tuple[str, ...]
    equivalent: str = ""

    def __str__(self) -> str:
        return f"{self.module}:{self.where}: {self.old.strip()} -> {self.new.strip()}"


class NoSuchPlace(LookupError):
    """A mutant that fits no place, or several."""


def source_file(module: str) -> Path:
    """The file of a module of the package, found without importing it."""
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def mutated(mutant: Mutant, source: str) -> str:
    """The source with the mutant in it.

    Raises:
        NoSuchPlace: the mutant's name or its old source is not there exactly once.
    """
    tree = ast.parse(source)
    body = _scope(tree, mutant)
    exchange = _Exchange(*_parsed(mutant.old, mutant.new))
    exchange.visit(body)
    if exchange.places != 1:
        raise NoSuchPlace(f"{mutant}: fits {exchange.places} places instead of 1")
    return ast.unparse(ast.fix_missing_locations(tree))


def _parsed(*pieces: str) -> tuple[Any, ...]:
    """Pieces of source, as expressions where all of them are, else as lists of statements."""
    bodies = [ast.parse(textwrap.dedent(piece).strip()).body for piece in pieces]
    if all(len(body) == 1 and isinstance(body[0], ast.Expr) for body in bodies):
        return tuple(body[0].value for body in bodies)  # type: ignore[attr-defined]
    return tuple(bodies)


def _scope(tree: ast.Module, mutant: Mutant) -> ast.AST:
    scope: ast.AST = tree
    for name in filter(None, mutant.where.split(".")):
        inner = [
            node
            for node in ast.iter_child_nodes(scope)
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name
        ]
        if len(inner) != 1:
            raise NoSuchPlace(f"{mutant}: there are {len(inner)} places called {name!r}")
        scope = inner[0]
    return scope


class _Exchange(ast.NodeTransformer):
    """Puts one piece of syntax in the place of another, and counts the places."""

    def __init__(self, old: ast.expr | list[ast.stmt], new: ast.expr | list[ast.stmt]) -> None:
        self.old, self.new = old, new
        self.places = 0
        self._old = ast.dump(old) if isinstance(old, ast.expr) else [ast.dump(n) for n in old]

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if isinstance(self.old, ast.expr):
            if isinstance(node, ast.expr) and ast.dump(node) == self._old:
                self.places += 1
                return self.new  # type: ignore[return-value]
        else:
            for name in ("body", "orelse", "finalbody"):
                if isinstance(block := getattr(node, name, None), list):
                    setattr(node, name, self._exchanged(block))
        return super().generic_visit(node)

    def _exchanged(self, block: list[ast.stmt]) -> list[ast.stmt]:
        dumped = [ast.dump(each) for each in block]
        size = len(self._old)
        for start in range(len(block) - size + 1):
            if dumped[start : start + size] == self._old:
                self.places += 1
                return [*block[:start], *self.new, *block[start + size :]]  # type: ignore[misc]
        return block


class Served(importlib.machinery.SourceFileLoader):
    """Loads a module from given source under its own name and file, past all caches."""

    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self._given = source

    def get_code(self, fullname: str) -> CodeType:
        """The given source, compiled."""
        return compile(self._given, self.path, "exec", dont_inherit=True)


class Finder(importlib.abc.MetaPathFinder):
    """Answers for one module."""

    def __init__(self, module: str, source: str) -> None:
        self.module, self.source = module, source

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> Any:
        """The module's spec with the given source; None for every other module."""
        if fullname != self.module:
            return None
        file = source_file(fullname)
        inside = [str(file.parent)] if file.name == "__init__.py" else None
        loader = Served(fullname, str(file), self.source)
        return importlib.util.spec_from_file_location(
            fullname, file, loader=loader, submodule_search_locations=inside
        )


def _run(module: str, source: str, tests: Sequence[str], log: str) -> None:
    """Within a fresh process: run tests with a module's source exchanged, and end as pytest did."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    status = BROKEN
    try:
        import pytest
        import torch

        torch.set_num_threads(1)
        os.chdir(ROOT)
        sys.meta_path.insert(0, Finder(module, source))
        status = int(pytest.main([*OPTIONS, *tests]))
        if module not in sys.modules:
            status = BROKEN
        sys.stdout.write(f"{time.process_time():.1f} s of processor time\n")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def outcome(module: str, source: str, tests: Sequence[str], log: Path) -> int:
    """What tests say of a module with this source: PASSED, CAUGHT, or that they could not run.

    Tests that hang longer than any of them may are taken for failed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_run, args=(module, source, tuple(tests), str(log)))
    process.start()
    process.join(LIMIT)
    if process.exitcode is None:
        process.kill()
        process.join()
        return CAUGHT
    return process.exitcode


def try_out(mutant: Mutant, log: Path) -> int:
    """What a mutant's tests say of it."""
    source = mutated(mutant, source_file(mutant.module).read_text(encoding="utf-8"))
    return outcome(mutant.module, source, mutant.tests, log)


def unchanged(module: str, tests: Sequence[str], log: Path) -> int:
    """What tests say of a module as it is, served in the same way."""
    source = source_file(module).read_text(encoding="utf-8")
    return outcome(module, ast.unparse(ast.parse(source)), tests, log)
