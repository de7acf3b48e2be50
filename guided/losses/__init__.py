"""Losses, one a file: ``kind = "identity"`` in a recipe is ``guided/losses/identity.py``."""
