"""Editing methods, one a file: what each knows of an image, and what it makes of it by a prompt.

A method is a class of ``Editor`` whose fields are its options.  Those of other packages are entry
points of the group ``guided.editors``; one's own, in a module or a notebook, is "module:Class" or
an object.
"""

from guided.core.plugins import Registry

EDITORS = Registry(
    "editor", "guided.editing", "guided.editing.base:Editor",
    group="guided.editors", key="method", joint="-",
)  # fmt: skip
#: Names that methods had before.
ALIASES = {"turn": "text-diff"}
