"""Latent mapper (StyleCLIP): a network for one prompt, whatever prompt is given.

Source: Patashnik et al. 2021 (StyleCLIP), section 5.
"""

from __future__ import annotations

from collections.abc import Generator as Stream
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from guided.core.keys import option
from guided.core.run import Step
from guided.editing.base import EditState
from guided.editing.latent import LatentEditor
from guided.errors import ShapeError, library_message

if TYPE_CHECKING:
    from guided.core.delta import Delta
    from guided.generators.stylegan2 import Space


class Mapper(LatentEditor):
    """The change of the W+ code, or of the StyleSpace codes, that a mapper gives."""

    needs_prompt: ClassVar[bool] = False

    mapper: str = option("a mapper's name or file", "")

    def roles(self) -> tuple[str, ...]:
        """The generator and the mapper."""
        return ("generator", "mapper")

    def propose(self, state: EditState, prompts: Sequence[str]) -> Stream[Step[Any], None, Delta]:
        """One pass of the mapper.

        Raises:
            ShapeError: a code of another size than the mapper was trained for.
            CannotDo: a StyleSpace latent and a W+ mapper.
        """
        import torch

        from guided.core.delta import Delta
        from guided.nets.mappers import StyleSpaceMapper, mapped

        net = state.models.mapper
        space: Space = "s" if isinstance(net, StyleSpaceMapper) else "w"
        codes = self.codes(state, space)
        with torch.no_grad():
            try:
                change = mapped(net, codes["w"] if space == "w" else list(codes.values()))
            except RuntimeError as error:
                shapes = {name: list(leaf.shape) for name, leaf in codes.items()}
                raise ShapeError(
                    f"This mapper does not fit the codes {shapes}: {library_message(error)}."
                ) from error
        leaves = [change] if isinstance(change, torch.Tensor) else change
        named = dict(zip(["w"] if space == "w" else codes, leaves, strict=True))
        yield Step(1, 1, "mapper")
        return Delta(codes, named, "mapper")
