"""Adapters that embed pictures and texts into one space."""
