"""Verbs of the world: portraits, read, demo."""
