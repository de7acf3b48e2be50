"""Adapters that turn a latent into pictures."""
