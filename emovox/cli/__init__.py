"""The command line. Commands parse, call and echo; heavy imports are inside them.

Results go to stdout, progress and messages to stderr.
"""

import errno
import os
import signal
from typing import Any

import click

from emovox import __version__
from emovox.cli import dataset_commands, labelling_commands, training_commands
from emovox.cli.options import echo
from emovox.errors import FULL, EmovoxError, first_line, lacks_memory, without_secrets
from emovox.packages import missing_package

UNREADABLE = 2
INTERRUPTED = 130  # a shell reports this for Ctrl-C
EXPLAINED = click.UsageError, EmovoxError, ImportError, MemoryError, OSError, RuntimeError


class Commands(click.Group):
    """A group that ends every command with one line and an exit code instead of a traceback."""

    def invoke(self, context: click.Context) -> Any:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # KeyboardInterrupt
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            echo("\nemovox: interrupted; rerun the same command", err=True)
            context.exit(INTERRUPTED)
        except EXPLAINED as error:
            explained = _explain(error, context.invoked_subcommand)
            if explained is None:
                raise
            message, exit_code = explained
            echo(f"emovox: error: {without_secrets(message)}", err=True)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # no traceback while Python exits
            context.exit(exit_code)


def _explain(error: Exception, command: str | None) -> tuple[str, int] | None:
    """Return the message and the exit code of a user's error, None for a bug."""
    match error:
        case EmovoxError():
            return str(error), error.exit_code
        case click.UsageError():
            hint = f"see '{' '.join(filter(None, ('emovox', command)))} --help'"
            return f"{error.format_message().removesuffix('.')}; {hint}", error.exit_code
        case _ if lacks_memory(error):
            reason = f"{first_line(error)}; raise the memory limit, or run fewer processes"
            return f"memory is short: {reason}", EmovoxError.exit_code
        case ModuleNotFoundError():
            missing = missing_package(error, str(command))
            return (str(missing), missing.exit_code) if missing else None
        case OSError() if error.errno in FULL:
            reason = f"{os.strerror(error.errno)}; fix this and rerun the same command"
            return reason, EmovoxError.exit_code
        case OSError() if error.filename is not None and error.errno != errno.EPIPE:
            return f"{error.filename}: {error.strerror}", UNREADABLE
    return None  # click handles a closed pipe


SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}


@click.group(cls=Commands, context_settings=SETTINGS)
@click.version_option(__version__)
def main() -> None:
    """Datasets of per-frame emotion logits from speaking-face video."""


for module in (labelling_commands, dataset_commands, training_commands):
    for command in vars(module).values():
        if isinstance(command, click.Command):
            main.add_command(command)
