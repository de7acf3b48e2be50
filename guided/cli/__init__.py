"""The command line: a thin face of the studio that parses, shows and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from guided.cli.interrupts import Interrupts
from guided.core.unfinished import Interrupted


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit status.

    0 is success; 1 a failure, told in one readable message; 2 wrong usage or a wrong recipe; 130
    Ctrl-C, 143 SIGTERM, with one line that says what is kept.  With ``--debug`` a failure shows
    where it happened instead.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with Interrupts(leaves=arguments is None) as interrupts:
        try:
            status = _run(words, interrupts)
        except (Interrupted, KeyboardInterrupt):
            return interrupts.told()
        except Exception:
            if interrupts.number:  # what a library made of the interruption
                return interrupts.told()
            raise
        return interrupts.told() if interrupts.number else status


def _run(words: list[str], interrupts: Interrupts) -> int:
    """The exit status of a command that ends by itself."""
    import click

    try:
        from guided.cli.group import guided

        status = guided.main(words, prog_name="guided", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort as error:
        raise KeyboardInterrupt from error
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; say nothing more
        return 1
    except Exception as error:
        if "--debug" in words or interrupts.number:
            raise
        return _tell(error)


def _tell(error: Exception) -> int:
    """One readable message for a failure, and its exit status."""
    import errno
    from pathlib import Path

    from guided.cli.console import line
    from guided.core.files import FULL, output_error
    from guided.errors import GuidedError, UsageError, library_message

    if isinstance(error, OSError) and error.errno in FULL:
        error = output_error(Path(error.filename or "the answer"), error)
    elif isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        error = UsageError(
            f"The name {Path(str(error.filename)).name[:80]!r} cannot be used: {error.strerror}.",
            hint="Give another name or path.",
        )
    if isinstance(error, GuidedError):
        line(f" {error.message}", "bold red", head="guided:", err=True)
        for detail in error.details:
            line(f"    {detail}", err=True)
        if error.hint:
            line(f"  {error.hint}", err=True)
        return error.exit_status
    message = f" unexpected {type(error).__name__}: {library_message(error)}"
    line(message, "bold red", head="guided:", err=True)
    line("  Run it again with --debug to see where it happened.", err=True)
    return 1
