"""Agreement with recorded runs of StyleCLIP's latent optimisation."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.delta import Delta
from guided.core.objective import Candidate, LossContext, Objective
from guided.core.run import Step
from guided.generators.stylegan2 import StyleGan2
from guided.guidance.edit import LatentSearch, styleclip_adam
from guided.guidance.updates import descend
from guided.losses.clip import Clip
from guided.losses.latent_l2 import LatentL2
from guided.nets.stylegan2 import StyleGAN2
from guided.nets.stylegan2_formats import build_stylegan2
from tests.parity.comparing import LATENT, PICTURE, Load, flat, near, numbered

pytestmark = pytest.mark.parity


class StandIn:
    """The scorer of the recorded runs: the prepared picture, pooled, projected, normalised."""

    name, scale = "stand-in", 100.0
    preprocess = SimpleNamespace(size=(224, 224), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def __init__(self, io: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> None:
        self.projection, self.target = io["scorer_proj"].to(dtype), io["scorer_target"].to(dtype)
        self.width = len(self.target)

    def embed_images(self, images: Tensor) -> Tensor:
        return F.normalize(F.avg_pool2d(images, 28).flatten(1) @ self.projection.T, dim=1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        return self.target.expand(len(texts), -1)


STYLECLIP = Objective.of(Clip(preprocess="styleclip"), 0.008 * LatentL2())


def run(
    generator: object, scorer: StandIn, start: Tensor, space: str, steps: int
) -> tuple[list[Step[Candidate]], Delta]:
    editor = LatentSearch(
        generator=generator, scorer=scorer, objective=STYLECLIP, space=space, steps=steps
    )
    moves = editor.propose({"w": start}, ["a prompt"])
    seen: list[Step[Candidate]] = []
    while True:
        try:
            seen.append(next(moves))
        except StopIteration as end:
            return seen, end.value


@pytest.fixture(scope="module")
def recorded(load: Load) -> dict[str, Tensor]:
    return load("optimisation_io")


@pytest.fixture(scope="module")
def generator(net: StyleGAN2) -> StyleGan2:
    return StyleGan2(net, overshoot="keep")


class ByWeights:
    """The generator of the recorded runs: the reference's order of operations, rounding and all."""

    name = "by weights"

    def __init__(self, net: StyleGAN2, reference: ModuleType) -> None:
        self.net, self.reference = net, reference

    def render(self, latent: dict[str, Tensor]) -> Tensor:
        return (self.reference.render(self.net, latent["w"]) + 1) / 2

    def in_space(self, latent: dict[str, Tensor], space: str) -> dict[str, Tensor]:
        return latent

    def movable(self, space: str) -> list[str]:
        return ["w"]


class Exact:
    """The generator in float64."""

    name = "exact"

    def __init__(self, net: StyleGAN2) -> None:
        self.net = build_stylegan2(net.state_dict()).double().requires_grad_(False)

    def render(self, latent: dict[str, Tensor]) -> Tensor:
        codes = self.net.codes(latent["w"]) if "w" in latent else list(latent.values())
        return (self.net.synthesis(codes) + 1) / 2

    def in_space(self, latent: dict[str, Tensor], space: str) -> dict[str, Tensor]:
        if space == "w":
            return latent
        return {f"s_{i:02d}": code for i, code in enumerate(self.net.codes(latent["w"]))}

    def movable(self, space: str) -> list[str]:
        colours = len(self.net.shape.channels)
        return (
            ["w"] if space == "w" else [f"s_{i:02d}" for i in range(3 * colours - 1) if i % 3 != 1]
        )


def apart(first: list[Step[Candidate]], second: list[Step[Candidate]]) -> tuple[Tensor, Tensor]:
    """The largest distance of latents and of losses up to each step of two runs."""
    latents = [
        max(
            float((a.draft.latent[k].double() - b.draft.latent[k]).abs().max())
            for k in a.draft.latent
        )
        for a, b in zip(first, second, strict=True)
    ]
    losses = [
        abs(a.losses["total"] - b.losses["total"]) for a, b in zip(first, second, strict=True)
    ]
    return torch.tensor(latents).cummax(0).values, torch.tensor(losses).cummax(0).values


@pytest.fixture(scope="module")
def drift(
    net: StyleGAN2, generator: StyleGan2, recorded: dict[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """How far rounding alone carries a run: float32 beside float64, for both spaces.

    Leaky ReLU makes the path chaotic: two exact programs that round differently part at the first
    kink they cross on different sides.
    """
    found = {}
    for space in ("w", "s"):
        start, steps = recorded[f"{space}_init"], len(recorded[f"{space}_losses"])
        single, _ = run(generator, StandIn(recorded), start, space, steps)
        exact = StandIn(recorded, torch.float64)
        double, _ = run(Exact(net), exact, start.double(), space, steps)
        found[space] = apart(single, double)
    return found


def test_w_plus_trajectory(
    net: StyleGAN2, recorded: dict[str, Tensor], reference: ModuleType, drift: dict
) -> None:
    """The loop, the losses and Adam on the reference's own arithmetic follow it to the end."""
    path = recorded["w_latents"]
    steps, delta = run(ByWeights(net, reference), StandIn(recorded), recorded["w_init"], "w",
                       len(path))  # fmt: skip
    off = torch.stack([
        (step.draft.latent["w"][0] - there).abs().max()
        for step, there in zip(steps, path, strict=True)
    ])  # fmt: skip
    allowed = 1e-4 + drift["w"][0]
    assert bool((off <= allowed).all()), off
    near(delta.at(1.0)["w"][0], steps[-1].draft.latent["w"][0], LATENT)


def test_w_plus_trajectory_of_the_fast_form(
    generator: StyleGan2, recorded: dict[str, Tensor], drift: dict
) -> None:
    """Our own network follows as far as rounding lets any program follow."""
    path = recorded["w_latents"]
    steps, _ = run(generator, StandIn(recorded), recorded["w_init"], "w", len(path))
    off = torch.stack([
        (step.draft.latent["w"][0] - there).abs().max()
        for step, there in zip(steps, path, strict=True)
    ])  # fmt: skip
    allowed = 1e-4 + 2 * drift["w"][0]
    assert bool((off <= allowed).all()), off
    start = 2 * generator.render({"w": recorded["w_init"]}) - 1
    near(start, recorded["w_image_orig"], PICTURE)


def test_each_step_from_the_recorded_latents(
    generator: StyleGan2, recorded: dict[str, Tensor]
) -> None:
    """Every one of the steps, begun where the reference was, ends where it ended."""
    path = torch.cat([recorded["w_init"], recorded["w_latents"]])[:, None]
    scene = LossContext(
        StandIn(recorded), ("a prompt",), Candidate({"w": path[0]}, generator.render)
    )
    bound, update, losses = STYLECLIP.bind(scene), styleclip_adam(), []
    state = update.init({"w": path[0]})
    for index in range(len(path) - 1):
        leaf = path[index].clone().requires_grad_()
        total, _ = bound(Candidate({"w": leaf}, generator.render, start=scene.start))
        gradient = torch.autograd.grad(total.sum(), leaf)[0]
        leaves, progress = {"w": path[index]}, index / (len(path) - 1)
        moves, state = update.update({"w": gradient}, state, leaves, progress)
        moved = descend(leaves, moves)
        losses.append(float(total.detach()))
        near(moved["w"], path[index + 1], PICTURE)
    near(torch.tensor(losses, dtype=torch.float64), recorded["w_losses"], 1e-5)
    last = 2 * generator.render({"w": path[-2]}) - 1
    near(last, recorded["w_image_last_before_update"], PICTURE)


def test_style_space_trajectory(
    generator: StyleGan2, recorded: dict[str, Tensor], drift: dict
) -> None:
    steps, delta = run(
        generator, StandIn(recorded), recorded["s_init"], "s", len(recorded["s_losses"])
    )
    totals = torch.tensor([step.losses["total"] for step in steps])
    scores = torch.tensor([1 - step.losses["clip"] for step in steps])
    latents, losses = drift["s"]
    assert bool(((totals - recorded["s_losses"]).abs() <= 1e-4 + 2 * losses).all())
    assert bool(((scores - recorded["s_scores"]).abs() <= 1e-4 + 2 * losses).all())
    final, slack = delta.at(1.0), 1e-4 + 2 * float(latents[-1])
    for i, theirs in enumerate(numbered(recorded, "s_final")):
        near(final[f"s_{i:02d}"], flat(theirs), slack)
    before = 2 * generator.render(steps[-2].draft.latent) - 1
    near(before, recorded["s_image_last_before_update"], 10 * slack)
