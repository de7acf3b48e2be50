"""The root command: it knows every command's name and help, and loads only the one that is called.

The verbs are the files of ``guided/tasks``; their helps are the first lines of those files.
"""

from __future__ import annotations

import importlib

import click

from guided import __version__
from guided.errors import nearest
from guided.tasks import task_help, task_names

#: Commands that are no verbs: name -> (module, attribute, short help).
COMMANDS: dict[str, tuple[str, str, str]] = {
    "check": ("guided.cli.runs", "check", "Check a recipe without running it."),
    "doctor": ("guided.cli.doctor", "doctor", "Look whether everything works."),
    "list": ("guided.cli.listing", "listing", "List tasks, recipes, losses, models, runs ..."),
    "models": ("guided.cli.models", "models", "List, add, get and check model files."),
    "rerun": ("guided.cli.runs", "rerun", "Repeat a run, pixel for pixel."),
    "run": ("guided.cli.runs", "run", "Run a recipe."),
    "show": ("guided.cli.runs", "show", "Show the recipe a picture carries, and all it came from."),
}

#: What commands were called in 0.1: understood with a notice.
FORMER_NAMES = {"again": "rerun"}


def short_help(name: str) -> str:
    """One line on a command, known without loading it."""
    return COMMANDS[name][2] if name in COMMANDS else task_help(name)


class LazyGroup(click.Group):
    """A group whose commands are loaded when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        return sorted({*COMMANDS, *task_names()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name; None for an unknown one."""
        if cmd_name in COMMANDS:
            module, attribute, _ = COMMANDS[cmd_name]
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        if cmd_name in task_names():
            from guided.cli.commands import command_of

            return command_of(cmd_name)
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but an unknown name is told with the nearest known one."""
        if args and args[0] in FORMER_NAMES:
            name = FORMER_NAMES[args[0]]
            click.echo(f"guided {args[0]} is now guided {name}.", err=True)
            args = [name, *args[1:]]
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            raise click.UsageError(
                f"There is no command {args[0]!r}. {nearest(args[0], known)}", ctx=ctx
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Verbs first, then the commands about recipes, runs and this computer."""
        for title, names in (("Verbs", task_names()), ("Commands", sorted(COMMANDS))):
            with formatter.section(title):
                formatter.write_dl([(name, short_help(name)) for name in names])


@click.command(
    cls=LazyGroup,
    epilog="guided VERB --help tells a verb's options. The same options are a recipe's keys: "
    "add --print-recipe to any command to see it as one.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, message="guided %(version)s")
def guided() -> None:
    """Steer any image or text generator with any CLIP."""
