"""Entry points of installed packages: a package that comes later is seen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from guided.core.installed import points_of
from tests.helpers.installed import install


def test_a_package_is_seen_when_it_comes_and_not_when_it_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert points_of("guided.nothing") == ()
    with monkeypatch.context() as patch:
        site = install(tmp_path, patch, "guided.nothing", one="json:loads")
        assert [(each.name, each.value) for each in points_of("guided.nothing")] == [
            ("one", "json:loads")
        ]
        second = site / "second-1.0.dist-info"
        second.mkdir()
        (second / "METADATA").write_text("Metadata-Version: 2.1\nName: second\nVersion: 1.0\n")
        (second / "entry_points.txt").write_text("[guided.nothing]\ntwo = json:dumps\n")
        assert sorted(each.name for each in points_of("guided.nothing")) == ["one", "two"]
    assert str(site) not in sys.path
    assert points_of("guided.nothing") == ()
