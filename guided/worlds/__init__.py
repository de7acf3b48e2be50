"""Worlds: a folder each, loaded only by the name that a kit gives (``guided.core.world``)."""
