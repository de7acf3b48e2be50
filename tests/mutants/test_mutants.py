from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutants.harness import (
    CAUGHT,
    PASSED,
    Mutant,
    NoSuchPlace,
    mutated,
    outcome,
    source_file,
    try_out,
    unchanged,
)
from tests.mutants.patterns import EQUIVALENT, MUTANTS

ALL = [*MUTANTS, *EQUIVALENT]
#: Every choice of tests with the modules it is asked about.
CHOICES = {tests: [m.module for m in ALL if m.tests == tests] for tests in (m.tests for m in ALL)}


def mutant(where: str, old: str, new: str) -> Mutant:
    return Mutant("guided.core.shapes", where, old, new, ())


SOURCE = """
def first(a, b):
    # a comment
    total = a + b  # another
    return (a + b,
            total)

class Second:
    def first(self, a):
        if a < 1:
            return a
        return -a
"""


def test_a_mutant_is_found_by_name_and_syntax() -> None:
    found = mutated(mutant("Second.first", "a<1", "a <= 1"), SOURCE)
    assert ast.dump(ast.parse(found)) == ast.dump(ast.parse(SOURCE.replace("a < 1", "a <= 1")))
    found = mutated(mutant("first", "total = a+b\nreturn (a + b, total)", "return 0"), SOURCE)
    assert "total" not in found
    assert "return 0" in found
    assert "pass" in mutated(mutant("Second", "if a < 1: return a", "pass"), SOURCE)


@pytest.mark.parametrize(
    ("where", "old", "match"),
    [
        ("first", "a + b", "fits 2 places"),
        ("third", "a + b", "0 places called 'third'"),
        ("Second.first", "a + b", "fits 0 places"),
    ],
)
def test_a_mutant_that_fits_no_place_or_several_is_an_error(
    where: str, old: str, match: str
) -> None:
    with pytest.raises(NoSuchPlace, match=match):
        mutated(mutant(where, old, "0"), SOURCE)


def test_every_mutant_has_its_place_and_its_tests() -> None:
    """What a renamed module, function or test breaks is found here, in a second."""
    assert len(MUTANTS) >= 60
    assert len({str(each) for each in ALL}) == len(ALL)
    for each in ALL:
        source = source_file(each.module).read_text(encoding="utf-8")
        assert mutated(each, source) != ast.unparse(ast.parse(source)), each
        assert Path(each.tests[0]).is_file(), each


def changes(each: Mutant) -> str:
    return f"{each.module}-{each.where}-{ALL.index(each)}"


@pytest.mark.soak
@pytest.mark.parametrize("tests", CHOICES, ids=" ".join)
def test_the_tests_pass_where_nothing_is_changed(tests: tuple[str, ...], tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert unchanged(CHOICES[tests][0], tests, log) == PASSED, log.read_text()


@pytest.mark.soak
@pytest.mark.parametrize("each", MUTANTS, ids=changes)
def test_a_mutant_is_caught(each: Mutant, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert try_out(each, log) == CAUGHT, f"{each}\n{log.read_text()}"


@pytest.mark.soak
@pytest.mark.parametrize("each", EQUIVALENT, ids=changes)
def test_an_equivalent_mutant_is_not(each: Mutant, tmp_path: Path) -> None:
    """Else its reason is wrong."""
    assert each.equivalent
    log = tmp_path / "log.txt"
    assert try_out(each, log) == PASSED, log.read_text()


@pytest.mark.soak
def test_what_cannot_run_is_not_taken_for_caught(tmp_path: Path) -> None:
    log, broken = tmp_path / "log.txt", "raise RuntimeError('no module')"
    tests = ("tests/core/test_seeds.py",)
    assert outcome("guided.core.seeds", broken, tests, log) not in (PASSED, CAUGHT)
    assert outcome("guided.retrieval.exact", "", tests, log) not in (PASSED, CAUGHT)  # not imported
