"""The rows of the edit benchmark that edit by diffusion, on tiny random models."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from guided.judging.edit_cases import EDITS, cases, stacked_pictures
from guided.judging.edit_figures import Batch
from guided.tasks._edit_diffusion_options import METHODS

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def rows() -> Any:
    before = list(sys.path)
    sys.path.insert(0, str(SCRIPTS))
    yield importlib.import_module("edit_rows_diffusion")
    sys.path[:] = before


@pytest.mark.parametrize("name", METHODS)
def test_a_row_draws_its_cases_at_any_strength(
    name: str, rows: Any, denoiser: Path, bundle: Path
) -> None:
    desk = rows.Desk({"scorer": f"local-dir:{bundle}", "denoiser": f"local-dir:{denoiser}"}, "cpu")
    some = cases(EDITS[0], 2)
    images = stacked_pictures(some, 32)
    batch = Batch(some, images, images, {})
    row = rows.DIFFUSION[name]
    assert row.roles[:2] == ("scorer", "denoiser")
    assert row.roles[2:] == (("latent_scorer",) if name == "directional" else ())
    work = row.prepare(desk, batch)
    drawn = work()
    assert drawn.before is images
    assert torch.equal(drawn.at(0.0), images)
    after = drawn.at(1.0)
    assert after.shape == images.shape
    assert float(after.min()) >= 0
    assert float(after.max()) <= 1
    assert float((after - images).abs().amax((1, 2, 3)).min()) > 0
    if name == "inpaint":
        stays = torch.stack([rows.may_change(case, 32) for case in some]) == 0
        keep = stays.expand_as(images)
        assert torch.equal(after[keep], images[keep])
    wrong = Batch(some, stacked_pictures(some, 64), stacked_pictures(some, 64), {})
    with pytest.raises(rows.ShapeError, match="64 pixels"):
        row.prepare(desk, wrong)
