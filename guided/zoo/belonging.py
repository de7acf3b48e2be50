"""Models that belong together are known by hash: a part names the other that it learnt with."""

from __future__ import annotations

from guided.errors import CorruptWeights


def check_same(claim: str, learnt: str, present: str, hint: str) -> None:
    """Accept a part that learnt with what is present, both given by sha256.

    ``claim`` begins the error: "The prior in F gives embeddings of another CLIP than ...".

    Raises:
        CorruptWeights: it learnt with another; the message names both.
    """
    if learnt != present:
        raise CorruptWeights(f"{claim}: {learnt[:16]}..., not {present[:16]}....", hint=hint)
