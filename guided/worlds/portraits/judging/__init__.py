"""Judges of the world: the reader and figures that nothing optimises."""
