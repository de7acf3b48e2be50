"""Tests of whatever a registry finds."""
