"""Makers of shipped files: what ``scripts/build NAME`` runs."""
