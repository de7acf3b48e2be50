"""Directional CLIP guidance: a replay with the prompt, steered by the difference of texts.

Source: Gal et al. 2022 (StyleGAN-NADA) for the loss; Huberman-Spiegelglas et al. 2024 (DDPM).
"""

from __future__ import annotations

from collections.abc import Generator as Stream
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from guided.core.keys import option
from guided.core.loss_tables import LossTable
from guided.core.run import Step
from guided.editing.base import EditState, loss_table
from guided.editing.denoising import ReplayEditor, cfg_key

if TYPE_CHECKING:
    from torch import Tensor

    from guided.guidance.guided_denoiser import Guidance


class Directional(ReplayEditor):
    """Edit-friendly DDPM that follows losses: CLIP sees the unfinished image at each step."""

    cfg: float = cfg_key(3.0)
    guide_scale: float = option("how far CLIP steers at each step", 0.2, ge=0)
    decode: Literal["vae", "tiny", "preview", "latent"] | None = option(
        "how CLIP sees the unfinished image; empty: the latent scorer's way where there is one, "
        "else by the decoder", None,
    )  # fmt: skip

    def roles(self) -> tuple[str, ...]:
        """The denoiser, and the scorer of latents where it is asked for."""
        return ("denoiser", *(("latent_scorer",) if self.decode == "latent" else ()))

    def usual_losses(self, *, masked: bool) -> list[LossTable]:
        """The direction from what the image shows."""
        return [loss_table("directional", source="")]

    def denoised(
        self, state: EditState, prompts: Sequence[str], first: int
    ) -> Stream[Step[Any], None, Tensor]:
        """The replay, steered."""
        from guided.core.objective import Candidate

        path = yield from self.replayed(state, prompts, first)
        latents, pipe = self.latents(state), state.models.denoiser.pipe
        sampler = self.sampler(
            state, self.bound(state, prompts, self.cfg), latents, first=first,
            sample=path.latents[0], residuals=path.residuals, eta=path.eta,
            guidance=self.guidance(state, prompts),
            source=Candidate({"x0": latents}, lambda x: pipe.decode_latents(x["x0"], "vae")),
        )  # fmt: skip
        return (yield from sampler.steps())

    def guidance(self, state: EditState, prompts: Sequence[str]) -> Guidance:
        """The losses, with the models that they look through."""
        from guided.guidance.guided_denoiser import Guidance

        models = state.models
        named = [models.chosen.get(role) for role in ("denoiser", "scorer")]
        student = models.latent_scorer(
            models.denoiser, models.scorer, asked=self.decode == "latent",
            chosen=bool(self.decode or any(named)),
        )  # fmt: skip
        objective = self.objective(state.sources)
        extras: dict[str, Any] = {"sources": self.neutral_texts(state, prompts)}
        extras |= {} if state.mask is None else {"mask": state.mask}
        return Guidance(
            objective=objective, scorer=models.scorer, prompts=tuple(prompts),
            scale=self.guide_scale, decode=self.decode or ("vae" if student is None else "latent"),
            latent_scorer=student, models=models.for_losses(objective), extras=extras,
        )  # fmt: skip
