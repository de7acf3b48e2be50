"""Prompt-to-prompt: a replay in which an edit attends where its source attends, word by word.

Source: Hertz et al. 2023 (prompt-to-prompt).
"""

from __future__ import annotations

from collections.abc import Generator as Stream
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from guided.core.keys import option, recipe_only
from guided.core.run import Step
from guided.editing.base import EditState
from guided.editing.denoising import ReplayEditor, cfg_key
from guided.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from guided.generators.diffusion import BoundDiffusion
    from guided.guidance.attention_control import Alignment


class P2p(ReplayEditor):
    """Edit-friendly DDPM with the attention of the source's words."""

    cfg: float = cfg_key(4.0)
    attention: Literal["replace", "refine"] = option(
        "what new words do: take the place of others, or join them", "refine"
    )
    reweight: list[str] = option("WORD=FACTOR: how much a word counts", [])
    cross_share: float = recipe_only(
        "part of the run with the source's word attention", 0.8, ge=0, le=1
    )
    self_share: float = recipe_only(
        "part of the run with the source's self-attention", 0.2, ge=0, le=1
    )

    def denoised(
        self, state: EditState, prompts: Sequence[str], first: int
    ) -> Stream[Step[Any], None, Tensor]:
        """The replay of the sources and, beside them, of the edits."""
        from guided.core.seeds import Seeds
        from guided.generators.diffusion.source import attention_net
        from guided.guidance.attention_control import Control, controlled

        path = yield from self.replayed(state, prompts, first)
        latents, texts = self.latents(state), self.source_texts(state, prompts)
        bound = self.bound(state, [*texts, *prompts], self.cfg)
        alignment = self._alignment(state, bound, texts, prompts)
        control = Control(alignment, self.cross_share, self.self_share)
        net = attention_net(state.models.denoiser.pipe)
        with controlled(net, bound, control, path.steps) as model:
            sampler = self.sampler(
                state, model, latents.repeat(2, 1, 1, 1), seeds=Seeds(state.seeds.values * 2),
                first=first, sample=path.latents[0].repeat(2, 1, 1, 1), beside=path, eta=path.eta,
            )  # fmt: skip
            edited = yield from sampler.steps()
        return edited[len(latents) :]

    def _alignment(
        self,
        state: EditState,
        bound: BoundDiffusion,
        texts: Sequence[str],
        prompts: Sequence[str],
    ) -> Alignment:
        from guided.generators.diffusion.source import token_ids, word_ids
        from guided.generators.diffusion.text import expect_one_window
        from guided.guidance.attention_control import Alignment

        pipe, length = state.models.denoiser.pipe, bound.words.text.shape[1]
        if pipe.long_text == "windows":
            expect_one_window(pipe, [*texts, *prompts], "--method p2p")
        one, two = (token_ids(pipe, each, length) for each in (texts, prompts))
        alignment = Alignment.of(one, two, self.attention, length)
        for wanted in self.reweight:
            word, factor = weighted(wanted)
            alignment = alignment.reweighted(two, word_ids(pipe, word), factor)
        return alignment


def weighted(text: str) -> tuple[str, float]:
    """A word and its factor, of WORD=FACTOR.

    Raises:
        UsageError: another form, or a factor that is no number from 0 up.

    >>> weighted("red hat=1.5")
    ('red hat', 1.5)
    """
    word, _, number = text.rpartition("=")
    try:
        factor = float(number)
    except ValueError:
        factor = -1.0
    if not word.strip() or not 0 <= factor < float("inf"):
        raise UsageError(
            f"--reweight takes WORD=FACTOR with a factor from 0 up, not {text!r}.",
            hint="Write for example --reweight smiling=2.",
        )
    return word.strip(), factor
