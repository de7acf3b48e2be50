"""Make pictures of words, with CLIP steering if asked.

Every prompt gives --count pictures; picture i of a prompt is made from seed S + i, whatever the
batch.  A method is a kind of generator: --method diffusion denoises, and with --guide or
--guide-image a CLIP steers it at every step.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import guided.tasks
from guided.core.run import Result
from guided.errors import UsageError, nearest
from guided.tasks._generate_options import Options, foreign_keys
from guided.tasks.base import Steps, TaskContext, changed, warn_idle

__all__ = ["Options", "check", "methods", "needs", "run"]

_PREFIX = "_generate_"


def methods() -> list[str]:
    """The methods there are: the files ``_generate_<method>.py`` beside this one."""
    found = (module.name for module in pkgutil.iter_modules(guided.tasks.__path__))
    names = (name.removeprefix(_PREFIX) for name in found if name.startswith(_PREFIX))
    return sorted(name for name in names if name.isalpha() and name != "options")


def _method(options: Options) -> Any:
    """The method's module: ``needs(options)`` and ``run(options, ctx)``.

    Raises:
        UsageError: there is no such method.
    """
    known = methods()
    if options.method not in known:
        raise UsageError(
            f"There is no method {options.method!r}; there are: {', '.join(known)}.",
            hint=nearest(options.method, known),
        )
    return importlib.import_module(f"guided.tasks.{_PREFIX}{options.method}")


def needs(options: Options) -> tuple[str, ...]:
    """The roles the chosen method loads a model for."""
    roles: tuple[str, ...] = _method(options).needs(options)
    return roles


def check(options: Options, ctx: TaskContext) -> None:
    """Refuse an empty prompt, and what the chosen method cannot do."""
    method = _method(options)
    if any(not prompt.strip() for prompt in options.prompts):
        raise UsageError("A prompt is empty.", hint="Say what the picture should show.")
    _refuse_others(options)
    if hasattr(method, "check"):
        method.check(options)


def _refuse_others(options: Options) -> None:
    """Refuse what only other methods do.

    Raises:
        UsageError: an option of theirs, by name.
    """
    for key in changed(options, sorted(foreign_keys(options.method))):
        known = {
            name: importlib.import_module(f"guided.tasks.{_PREFIX}{name}") for name in methods()
        }
        owners = [name for name, each in known.items() if key in each.OWN]
        raise UsageError(
            f"--{key.replace('_', '-')} is an option of the method {', '.join(owners)}, not of "
            f"{options.method}.",
            hint=f"Leave it out, or take --method {owners[0]}.",
        )


def run(options: Options, ctx: TaskContext) -> Steps:
    """Make the pictures by the chosen method."""
    method = _method(options)
    check(options, ctx)
    warn_idle(options, *method.idle(options))
    result: Result = yield from method.run(options, ctx)
    return result
