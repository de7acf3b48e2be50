"""The contract of a captioner: from target embeddings to log-probabilities of the next token."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict

from guided.core.loss_tables import LossTable

if TYPE_CHECKING:
    from guided.core.objective import Objective
    from guided.guidance.caption_decoder import CaptionConfig
    from guided.guidance.decode import Guide
    from guided.guidance.zerocap import CaptionModels
    from guided.language.profile import Profile


class Captioner(BaseModel):
    """A way to caption; its fields are its options, a table under its name in recipes.

    An option that is None is what suits the language model.  ``needs_context`` says that captions
    must begin with words that are given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    needs_context: ClassVar[bool] = False

    def of_profile(self, profile: Profile) -> Self:
        """The captioner with what the language model's profile says where its options are None."""
        missing = {name for name in type(self).model_fields if getattr(self, name) is None}
        known = {name: self.suited(name, profile) for name in missing}
        return self.model_copy(update=known)

    def suited(self, option: str, profile: Profile) -> Any:
        """What a profile says of an option, by the same name."""
        return getattr(profile, option)

    def usual_losses(self) -> list[LossTable] | None:
        """The [[loss]] tables that it follows by itself; None for one that follows none."""
        return None

    @abstractmethod
    def guide(self, models: CaptionModels, config: CaptionConfig, objective: Objective) -> Guide:
        """What proposes the next tokens for the targets that ``models`` holds, [S, D].

        ``objective`` sums the losses that it follows.
        """
