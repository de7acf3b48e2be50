"""Latent mappers: a code -> the change that one prompt asks for.

Names (with the spelling ``course_mapping``) and behaviour are those of the public StyleCLIP files,
including that PixelNorm runs over axis 1, which for a W+ code is the axis of its rows within the
group, not of its features.  Source: Patashnik et al. 2021 (arXiv 2103.17249), section 5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from guided.errors import CorruptWeights, ShapeError
from guided.nets.equalized import EqualLinear, PixelNorm
from guided.nets.loading import load_exactly

STEP = 0.1
"""The factor on a mapper's output: code + 0.1 * mapper(code)."""

_GROUPS = {"course": slice(0, 4), "medium": slice(4, 8), "fine": slice(8, None)}


class Mapper(nn.Module):
    """PixelNorm over axis 1, then equal linear layers with leaky ReLU; [B, ..., D] -> the same."""

    def __init__(self, width: int, depth: int = 4) -> None:
        super().__init__()
        layers = [EqualLinear(width, width, pace=0.01, activation="lively") for _ in range(depth)]
        self.mapping = nn.Sequential(PixelNorm(), *layers)

    def forward(self, codes: Tensor) -> Tensor:
        """The change, of the same shape."""
        change: Tensor = self.mapping(codes)
        return change


class SingleMapper(nn.Module):
    """One mapper for all rows of W+ [B, rows, D]."""

    def __init__(self, width: int, depth: int = 4) -> None:
        super().__init__()
        self.mapping = Mapper(width, depth)

    def forward(self, w_plus: Tensor) -> Tensor:
        """The unscaled change [B, rows, D]."""
        change: Tensor = self.mapping(w_plus)
        return change


class LevelsMapper(nn.Module):
    """A mapper each for W+ rows 0-3, 4-7 and 8 on; an absent one changes nothing."""

    def __init__(
        self, width: int, groups: Sequence[str] = ("course", "medium", "fine"), depth: int = 4
    ) -> None:
        super().__init__()
        for group in groups:
            self.add_module(f"{group}_mapping", Mapper(width, depth))

    def forward(self, w_plus: Tensor) -> Tensor:
        """The unscaled change [B, rows, D]."""
        parts: list[Tensor] = []
        for group, rows in _GROUPS.items():
            part = w_plus[:, rows]
            mapper = getattr(self, f"{group}_mapping", None)
            parts.append(torch.zeros_like(part) if mapper is None else mapper(part))
        return torch.cat(parts, dim=1)


class StyleSpaceMapper(nn.Module):
    """A mapper for each StyleSpace code in ``widths`` (index -> channels)."""

    def __init__(self, widths: Mapping[int, int], depth: int = 4) -> None:
        super().__init__()
        for index, width in widths.items():
            self.add_module(f"mapper_{index}", Mapper(width, depth))

    def forward(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """Codes, each [B, C_i] -> their changes, zeros where there is no mapper."""
        changes: list[Tensor] = []
        for index, code in enumerate(codes):
            mapper = getattr(self, f"mapper_{index}", None)
            changes.append(torch.zeros_like(code) if mapper is None else mapper(code))
        return changes


AnyMapper = SingleMapper | LevelsMapper | StyleSpaceMapper


def build_mapper(state: Mapping[str, Tensor]) -> AnyMapper:
    """The mapper of the ``mapper.`` part of a StyleCLIP checkpoint, whichever of the three it is.

    Raises:
        CorruptWeights: no mapper, or entries that do not fit; the message lists the keys.
    """
    first = re.compile(r"(.*?)mapping\.1\.weight")
    heads = {m[1]: value.shape[0] for key, value in state.items() if (m := first.fullmatch(key))}
    if not heads:
        raise CorruptWeights(
            "This is no StyleCLIP mapper: no entry ends in mapping.1.weight.",
            hint="Expected are course_mapping, medium_mapping and fine_mapping, or mapper_0 ...",
        )
    prefix = next(iter(heads))
    depth = sum(
        1 for key in state if re.fullmatch(re.escape(prefix) + r"mapping\.\d+\.weight", key)
    )
    net = _shaped(heads, depth)
    load_exactly(net, state, "a StyleCLIP mapper")
    return net.eval()


def _shaped(heads: Mapping[str, int], depth: int) -> AnyMapper:
    if all(re.fullmatch(r"mapper_\d+\.", head) for head in heads):
        return StyleSpaceMapper({int(head[7:-1]): width for head, width in heads.items()}, depth)
    width = next(iter(heads.values()))
    if set(heads) == {"mapping."}:
        return SingleMapper(width, depth)
    return LevelsMapper(width, [g for g in _GROUPS if f"{g}_mapping." in heads], depth)


def mapped(mapper: AnyMapper, codes: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
    """The change a mapper proposes, already scaled as its checkpoint expects.

    W+ [B, rows, D] gives 0.1 * mapper(w); StyleSpace codes give that for each code.

    Raises:
        ShapeError: a W+ mapper given StyleSpace codes, or the reverse.
    """
    in_style_space = isinstance(mapper, StyleSpaceMapper)
    if isinstance(codes, Tensor) == in_style_space:
        wanted = "StyleSpace codes" if in_style_space else "a W+ code [B, rows, D]"
        raise ShapeError(f"This mapper takes {wanted}.")
    change = mapper(codes)
    if isinstance(change, Tensor):
        return STEP * change
    return [STEP * part for part in change]
