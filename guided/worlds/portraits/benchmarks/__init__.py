"""Benchmarks by name: a module here is what ``scripts/bench NAME`` runs; speed, as ratios."""
