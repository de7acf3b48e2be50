"""Update rules against their formulas, and what holds of every one of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from guided.core.objective import BoundObjective, Candidate
from guided.core.protocols import Latent
from guided.guidance import updates
from guided.guidance.optimise import optimise
from guided.guidance.updates import (
    Update,
    adam,
    chain,
    clip,
    descend,
    momentum,
    noise_steps,
    normalize,
    on_shell,
    ramp,
    scale,
    whiten,
    zerocap_steps,
)  # fmt: skip

RULES: dict[str, Callable[[], Update]] = {
    "adam": adam,
    "clip": lambda: clip(0.5),
    "momentum": momentum,
    "normalize": lambda: normalize(0.3, 0.9),
    "on_shell": on_shell,
    "scale": lambda: scale(0.1, ramp),
    "whiten": whiten,
    "zerocap_steps": zerocap_steps,
    "noise_steps": noise_steps,
    "chain": lambda: chain(clip(1.0), normalize(), whiten(), momentum(), adam(), on_shell()),
}


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(index: int, rows: slice = slice(None)) -> Latent:
    return {"a": noise(2 * index, 3, 4)[rows], "b": 5 * noise(2 * index + 1, 3, 2, 3)[rows]}


def followed(update: Update, leaves: Latent, rows: slice = slice(None), steps: int = 4) -> Latent:
    """The leaves after some steps of given gradients."""
    state = update.init(leaves)
    for index in range(steps):
        moves, state = update.update(gradients(index, rows), state, leaves, index / steps)
        leaves = descend(leaves, moves)
    return leaves


def one(update: Update, g: Tensor, leaf: Tensor | None = None, progress: float = 0.0) -> Tensor:
    leaves = {"x": torch.zeros_like(g) if leaf is None else leaf}
    return update.update({"x": g}, update.init(leaves), leaves, progress)[0]["x"]


def test_every_rule_of_the_module_is_tried_here() -> None:
    made = {name for name, rule in vars(updates).items()
            if callable(rule) and getattr(rule, "__annotations__", {}).get("return") == "Update"
            and not name.startswith("_")}  # fmt: skip
    assert made == set(RULES)


@pytest.mark.parametrize("name", RULES)
def test_rules_are_pure_and_rows_move_by_themselves(name: str) -> None:
    update = RULES[name]()
    leaves = {"a": noise(50, 3, 4), "b": noise(51, 3, 2, 3)}
    before = {key: leaf.clone() for key, leaf in leaves.items()}
    first, again = followed(update, leaves), followed(update, leaves)
    for key, leaf in first.items():
        assert torch.equal(again[key], leaf)  # one rule serves two loops: it holds no state
        assert torch.equal(leaves[key], before[key])
        assert not torch.equal(leaf, before[key])
    for row in range(3):
        rows = slice(row, row + 1)
        alone = followed(update, {key: leaf[rows] for key, leaf in leaves.items()}, rows)
        for key, leaf in alone.items():
            torch.testing.assert_close(first[key][rows], leaf, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_a_gradient_of_zero_gives_finite_steps(name: str) -> None:
    assert torch.isfinite(one(RULES[name](), torch.zeros(2, 5), noise(0, 2, 5))).all()
    assert torch.isfinite(one(RULES[name](), torch.zeros(2, 5))).all()


def test_the_update_by_adam_is_torchs() -> None:
    """Also for gradients as small as its epsilon, and with a schedule."""
    start = noise(0, 2, 3)
    theirs, ours = start.clone().requires_grad_(), {"x": start}
    optimiser = torch.optim.Adam([theirs], lr=0.1, betas=(0.8, 0.95), eps=1e-4, foreach=False)
    update = adam(0.2, (0.8, 0.95), 1e-4, schedule=lambda progress: 0.5)
    state = update.init(ours)
    for index in range(6):
        gradient = noise(index + 1, 2, 3) * torch.tensor([1.0, 1e-4, 1e-6])
        theirs.grad = gradient
        optimiser.step()
        moves, state = update.update({"x": gradient}, state, ours, index / 6)
        ours = descend(ours, moves)
        torch.testing.assert_close(ours["x"], theirs.detach(), rtol=1e-6, atol=1e-8)


def test_the_normalised_update_has_a_length_for_every_row_of_every_leaf() -> None:
    leaves = {"a": torch.zeros(3, 2), "b": torch.zeros(3, 1, 2)}
    given = {
        "a": torch.tensor([[3.0, 4.0], [0.06, 0.08], [0.0, 0.0]]),
        "b": torch.tensor([[[0.0, -2.0]], [[1.0, 0.0]], [[0.0, 0.0]]]),
    }
    update = zerocap_steps(rate=0.5, power=0.75)
    moved = descend(leaves, update.update(given, update.init(leaves), leaves, 0.0)[0])
    lengths = {name: leaf.flatten(1).norm(dim=1).tolist() for name, leaf in moved.items()}
    assert lengths["a"] == pytest.approx([0.5 * 5**0.25, 0.5 * 0.1**0.25, 0.0])
    assert lengths["b"] == pytest.approx([0.5 * 2**0.25, 0.5, 0.0])
    torch.testing.assert_close(moved["a"][0], -0.5 * 5**0.25 * torch.tensor([0.6, 0.8]))
    assert float(moved["b"][0, 0, 1]) > 0


def test_clip_bounds_the_norm_of_a_row_over_all_leaves() -> None:
    given = {"a": torch.tensor([[3.0, 0.0], [0.03, 0.0]]), "b": torch.tensor([[4.0], [0.04]])}
    update = clip(2.0)
    clipped = update.update(given, update.init(given), given, 0.0)[0]
    assert clipped["a"].tolist() == [pytest.approx([1.2, 0.0]), pytest.approx([0.03, 0.0])]
    assert clipped["b"].flatten().tolist() == pytest.approx([1.6, 0.04])


def test_whiten_gives_rows_of_mean_zero_and_variance_one() -> None:
    g = noise(3, 4, 2, 50) * torch.tensor([1e-4, 1.0, 30.0, 1.0]).view(-1, 1, 1) + 7e-4
    g[3] = 0.1  # equal numbers, which rounding must not blow up
    rows = one(whiten(), g).flatten(1)
    assert rows.mean(1).tolist() == pytest.approx([0.0] * 4, abs=1e-5)
    assert rows.square().mean(1).tolist() == pytest.approx([1.0, 1.0, 1.0, 0.0], rel=1e-4)
    centered = g.flatten(1) - g.flatten(1).mean(1, keepdim=True)
    cosines = torch.cosine_similarity(rows[:3], centered[:3])
    assert cosines.tolist() == pytest.approx([1.0] * 3, abs=1e-5)


def test_momentum_adds_up_decayed_gradients() -> None:
    update, g = momentum(0.5), {"x": torch.tensor([[1.0, -2.0]])}
    state, sums = update.init(g), []
    for _ in range(3):
        moves, state = update.update(g, state, g, 0.0)
        sums.append(moves["x"][0].tolist())
    assert sums == [[1.0, -2.0], [1.5, -3.0], [1.75, -3.5]]


def test_on_shell_ends_at_a_norm_along_the_step() -> None:
    leaf, g = noise(4, 3, 2, 8), 0.2 * noise(5, 3, 2, 8)
    for rule, radius in ((on_shell(), 4.0), (on_shell(2.5), 2.5)):
        after = leaf - one(rule, g, leaf)
        assert after.flatten(1).norm(dim=1).tolist() == pytest.approx([radius] * 3, rel=1e-6)
        along = torch.cosine_similarity(after.flatten(1), (leaf - g).flatten(1))
        assert along.tolist() == pytest.approx([1.0] * 3, abs=1e-6)


def test_a_chain_hands_each_rule_the_steps_of_the_one_before() -> None:
    g = torch.tensor([[3.0, 4.0]])
    assert one(chain(clip(1.0), scale(10.0)), g)[0].tolist() == pytest.approx([6.0, 8.0])
    assert one(chain(scale(10.0), clip(1.0)), g)[0].tolist() == pytest.approx([0.6, 0.8])
    assert torch.equal(one(chain(), g), g)


def test_noise_is_searched_without_leaving_the_shell() -> None:
    """Rows of noise turn to the direction asked for, and every draft of the search is on the shell.
    """  # fmt: skip
    wanted = torch.nn.functional.normalize(noise(6, 1, 64))

    def away(draft: Candidate) -> Tensor:
        return -(draft.latent["noise"] * wanted).sum(1)

    bound = BoundObjective(("away",), (away,), (1.0,))
    start = {"noise": noise(7, 2, 64)}
    steps = list(optimise(start, lambda leaves, p: Candidate(leaves, lambda x: x["noise"]), bound,
                          noise_steps(0.3), 60))  # fmt: skip
    for step in steps:
        norms = step.draft.latent["noise"].norm(dim=1)
        assert norms.tolist() == pytest.approx([8.0, 8.0], rel=1e-6)
    assert steps[-1].losses["away"] < -7.5


def test_the_update_rises_in_a_line_and_falls_as_a_cosine() -> None:
    assert [ramp(p) for p in (0.0, 0.025, 0.05, 0.4, 0.75)] == pytest.approx([0, 0.5, 1, 1, 1])
    assert ramp(0.875) == pytest.approx(0.5)
    assert ramp(1 - 0.25 / 3) == pytest.approx(0.25)
    assert ramp(1.0) == pytest.approx(0.0)
