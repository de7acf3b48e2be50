"""ZeroCap: CLIP moves the language model's context until the next word fits the image.

Source: Tewel et al. 2022 (ZeroCap), section 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from guided.captioning.base import Captioner
from guided.core.keys import recipe_only
from guided.core.loss_tables import LossTable

if TYPE_CHECKING:
    from guided.core.objective import Objective
    from guided.guidance.caption_decoder import CaptionConfig
    from guided.guidance.decode import Guide
    from guided.guidance.zerocap import CaptionModels
    from guided.language.profile import Profile


class Zerocap(Captioner):
    """Gradient steps on keys and values at each word, by the losses of the recipe."""

    needs_context: ClassVar[bool] = True

    candidates: int | None = recipe_only("next tokens CLIP looks at", None, ge=1)
    iterations: int | None = recipe_only("gradient steps a word", None, ge=1, le=100)
    rate: float | None = recipe_only("size of a gradient step", None, ge=0)
    power: float = recipe_only("power of the gradient's norm it is divided by", 0.9, ge=0, le=1)
    fusion: float = recipe_only("share of the guided model in the mix", 0.99, ge=0, le=1)
    temperature: float | None = recipe_only("temperature of CLIP's choice", None, gt=0)
    prior: float | None = recipe_only(
        "how much CLIP's choice keeps the odds of the words without guidance", None, ge=0, le=1
    )
    clip_weight: float = recipe_only("weight of the loss word_clip", 1.0, ge=0)
    fluency_weight: float | None = recipe_only("weight of the loss fluency", None, ge=0)
    weight: float | None = recipe_only("weight of the cosine in the rank of a beam", None, ge=0)

    def suited(self, option: str, profile: Profile) -> Any:
        """What a profile says of an option."""
        own = {"fluency_weight": profile.fluency, "weight": profile.weight["optimise"]}
        return own[option] if option in own else super().suited(option, profile)

    def usual_losses(self) -> list[LossTable]:
        """CLIP's choice among the likely words, and the odds without guidance."""
        words = {
            "kind": "word_clip", "candidates": self.candidates, "temperature": self.temperature,
            "prior": self.prior, "weight": self.clip_weight,
        }  # fmt: skip
        fluency = {"kind": "fluency", "weight": self.fluency_weight}
        tables = [{k: v for k, v in table.items() if v is not None} for table in (words, fluency)]
        return [LossTable.model_validate(table) for table in tables]

    def guide(self, models: CaptionModels, config: CaptionConfig, objective: Objective) -> Guide:
        """The search by gradients at each word."""
        from guided.guidance.zerocap import ZeroCap

        assert self.iterations is not None
        assert self.rate is not None
        assert self.candidates is not None
        return ZeroCap(
            models, objective, config.logits_processors, iterations=self.iterations, rate=self.rate,
            power=self.power, fusion=self.fusion, whole="sample" if config.reference else "beam",
            candidates=self.candidates, weight=0.0 if config.reference else self.weight or 0.0,
        )  # fmt: skip
