"""Trainings that know the world: its datasets, loss terms and monitors."""
