"""The rows of the edit benchmark that edit by diffusion, on tiny random models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from guided.errors import ShapeError
from guided.worlds.portraits.judging.edit_cases import EDITS, cases, may_change, stacked_pictures
from guided.worlds.portraits.judging.edit_figures import Batch
from guided.worlds.portraits.judging.edit_methods import EvalContext
from guided.worlds.portraits.judging.edit_methods_diffusion import DIFFUSION_METHODS
from tests.helpers import unclip_models

# Fixtures.
bundle = unclip_models.bundle
denoiser = unclip_models.denoiser


pytestmark = pytest.mark.soak


@pytest.mark.parametrize("name", DIFFUSION_METHODS)
def test_a_row_draws_its_cases_at_any_strength(name: str, denoiser: Path, bundle: Path) -> None:
    context = EvalContext(
        {"scorer": f"local-dir:{bundle}", "denoiser": f"local-dir:{denoiser}"}, "cpu"
    )
    some = cases(EDITS[0], 2)
    images = stacked_pictures(some, 32)
    batch = Batch(some, images, images, {})
    row = DIFFUSION_METHODS[name]
    assert row.roles[:2] == ("scorer", "denoiser")
    assert row.roles[2:] == (("latent_scorer",) if name == "directional" else ())
    work = row.prepare(context, batch)
    drawn = work()
    assert drawn.before is images
    assert torch.equal(drawn.at(0.0), images)
    after = drawn.at(1.0)
    assert after.shape == images.shape
    assert float(after.min()) >= 0
    assert float(after.max()) <= 1
    assert float((after - images).abs().amax((1, 2, 3)).min()) > 0
    if name == "inpaint":
        stays = torch.stack([may_change(case, 32) for case in some]) == 0
        keep = stays.expand_as(images)
        assert torch.equal(after[keep], images[keep])
    wrong = Batch(some, stacked_pictures(some, 64), stacked_pictures(some, 64), {})
    with pytest.raises(ShapeError, match="64 pixels"):
        row.prepare(context, wrong)
