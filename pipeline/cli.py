"""The program `callfold`: finds the command, runs it, and turns whatever happens into one line and an exit code.

1. 0 is success, 1 failure, 2 wrong use, 130 Ctrl-C, 141 a reader that went away (as for any program in a pipe).
2. A failure is one line on stderr that says what to do; the traceback is for `--debug`.
3. Nothing heavy is imported here, nor at the top of a command's module: `callfold --help` must feel instant.
"""

import atexit
import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

import pipeline
from pipeline.commands.backfill import backfill, rebuild
from pipeline.commands.demo import demo
from pipeline.commands.doctor import doctor
from pipeline.commands.forget import forget
from pipeline.commands.lake import compact, query
from pipeline.commands.quarantine import quarantine, replay
from pipeline.commands.report import report
from pipeline.commands.serve import collect, serve, work
from pipeline.commands.simulate import simulate
from pipeline.errors import CallfoldError
from pipeline.logs import LogSetup, set_up_logging

FAILURE, WRONG_USE, INTERRUPTED, READER_GONE = 1, 2, 130, 141


class _InOrder(click.Group):
    """Lists the commands in the order of a working day, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InOrder,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: callfold demo",
)
@click.version_option(pipeline.__version__, prog_name="callfold", message="%(prog)s %(version)s")
def cli() -> None:
    """Fold call webhooks of voice and telephony providers into completed call records.

    Settings come from the command line, else the environment (CALLFOLD_…), else callfold.toml, else a default.
    """


for _command in (
    demo, serve, collect, work, backfill, quarantine, replay, rebuild, compact, forget, query, report, simulate,
    doctor,
):  # fmt: skip
    cli.add_command(_command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. Never raises, whatever happens."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    _log_to_stderr(debug=debug)
    try:
        with cli.make_context("callfold", arguments) as context:
            code = cli.invoke(context)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        _forget_stdout()
        return READER_GONE
    except (KeyboardInterrupt, click.Abort):
        return _say("interrupted", INTERRUPTED)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.exceptions.NoArgsIsHelpError as no_command:
        no_command.show()
        return WRONG_USE
    except Exception as failure:  # noqa: BLE001 - the edge of the program: everything becomes one line
        if debug:
            traceback.print_exc()
        return _say(*_explained(failure, debug=debug))


def program() -> NoReturn:
    """Run the command line of this process, and end it; what is to run at the end is run, the interpreter stays whole.

    Arrow's threads may let go of a Python file a moment after it was read. In an interpreter that is being taken apart
    that ends the process with "terminate called without an active exception" (134), although all was done.
    """
    code = main()
    atexit._run_exitfuncs()  # noqa: SLF001  multiprocessing ends its helpers there, and there is no public way
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _explained(failure: Exception, *, debug: bool) -> tuple[str, int]:
    """What to tell the user about it, and the exit code."""
    if isinstance(failure, CallfoldError):
        return str(failure), failure.exit_code
    if isinstance(failure, click.UsageError):
        command = failure.ctx.command_path if failure.ctx else "callfold"
        return f"{failure.format_message()} Try '{command} --help'.", WRONG_USE
    if isinstance(failure, click.ClickException):
        return failure.format_message(), failure.exit_code
    if isinstance(failure, OSError) and failure.strerror:
        where = f"{failure.filename}: " if failure.filename else ""
        return f"{where}{failure.strerror}", FAILURE
    hint = "" if debug else " (run it again with --debug for the traceback)"
    return f"{type(failure).__name__}: {failure}{hint}", FAILURE


def _say(message: str, code: int) -> int:
    """Print one line, however many the message has."""
    line = " ".join(message.split())
    # A closed or broken stderr must not turn an exit code into a traceback.
    with contextlib.suppress(OSError, ValueError):
        print(f"callfold: {line}", file=sys.stderr, flush=True)  # noqa: T201 - the one place that speaks
    return code


def _forget_stdout() -> None:
    """Let the interpreter's own last flush go nowhere, instead of complaining about the pipe once more."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - open until the end


def _log_to_stderr(*, debug: bool) -> None:
    """Warnings of everything; with `--debug` all that this package has to say."""
    set_up_logging(LogSetup(level=logging.DEBUG if debug else logging.NOTSET))


if __name__ == "__main__":
    program()
