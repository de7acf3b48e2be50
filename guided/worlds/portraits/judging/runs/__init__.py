"""Judges by name: a module here is what ``scripts/judge NAME`` runs."""
