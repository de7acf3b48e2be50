"""Metrics and judges: models that are never optimised, trained on or used for selection."""
