"""Score fusion: CLIP only weighs the language model's words; no gradients, and quicker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from guided.captioning.base import Captioner
from guided.core.keys import recipe_only

if TYPE_CHECKING:
    from guided.core.objective import Objective
    from guided.guidance.caption_decoder import CaptionConfig
    from guided.guidance.decode import Guide
    from guided.guidance.zerocap import CaptionModels
    from guided.language.profile import Profile


class Fuse(Captioner):
    """The likeliest words, ranked by the cosine of all that is said so far."""

    candidates: int | None = recipe_only("next tokens CLIP looks at", None, ge=1)
    weight: float | None = recipe_only("weight of the cosine in the rank of a beam", None, ge=0)

    def suited(self, option: str, profile: Profile) -> Any:
        """What a profile says of an option."""
        return profile.weight["fuse"] if option == "weight" else super().suited(option, profile)

    def guide(self, models: CaptionModels, config: CaptionConfig, objective: Objective) -> Guide:
        """The weighing at each word."""
        from guided.guidance import zerocap

        assert self.candidates is not None
        assert self.weight is not None
        return zerocap.Fuse(models, config.logits_processors, self.candidates, self.weight)
