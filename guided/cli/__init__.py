"""The command line: a thin face of the studio that parses, shows and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from guided.cli.group import guided
from guided.errors import GuidedError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit status.

    0 is success; 1 a failure, told in one readable message; 2 wrong usage or a wrong recipe; 130
    an interruption.  With ``--debug`` a failure shows where it happened instead.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = guided.main(words, prog_name="guided", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("guided: interrupted", err=True)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; say nothing more
        return 1
    except Exception as error:
        if "--debug" in words:
            raise
        return _tell(error)


def _tell(error: Exception) -> int:
    """One readable message for a failure, and its exit status."""
    if isinstance(error, GuidedError):
        click.echo(f"guided: {error.message}", err=True)
        if error.hint:
            click.echo(f"  {error.hint}", err=True)
        return error.exit_status
    first = str(error).strip().partition("\n")[0]
    click.echo(f"guided: unexpected {type(error).__name__}: {first}", err=True)
    click.echo("  Run it again with --debug to see where it happened.", err=True)
    return 1
