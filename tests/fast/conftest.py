"""A tiny random CLIP, as a bundle on disk and loaded."""

from tests.helpers.tiny_clip import bundle, scorer

__all__ = ["bundle", "scorer"]
