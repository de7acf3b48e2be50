"""Captioners, one a file: from an image's embedding to the next word, decoded by the shared loop.

A captioner is a class of ``Captioner`` whose fields are its options.  Those of other packages are
entry points of the group ``guided.captioners``; one's own, in a module or a notebook, is
"module:Class" or an object.
"""

from guided.core.plugins import Registry

CAPTIONERS = Registry(
    "captioner", "guided.captioning", "guided.captioning.base:Captioner",
    group="guided.captioners", key="method", joint="-",
)  # fmt: skip
#: Names that captioners had before.
ALIASES = {"optimise": "zerocap"}
