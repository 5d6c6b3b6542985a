"""What the commands have in common: their options, their settings, and progress on a terminal."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

if TYPE_CHECKING:
    from pipeline.settings import Settings

Function = TypeVar("Function", bound=Callable[..., Any])


class _LakeType(click.Path):
    """A folder; or an address of object storage, which goes as it is to the reader of the setting."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from pipeline.storage.place import is_address

        return value if is_address(str(value)) else super().convert(value, param, ctx)


class Progress(Protocol):
    """Takes how much is done and how much there is, in any unit, as often as one likes."""

    def __call__(self, done: int, total: int) -> None:
        """So much of so much."""


def command(*, example: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A command with the options that every command has; `example` is shown at the end of its help."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        # \b keeps click from wrapping the line, so that it can be copied.
        return click.command(epilog=f"\b\nExample:\n  {example}")(_with_common_options(function))

    return decorate


def _with_common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    @click.option("--lake", type=_LakeType(file_okay=False, path_type=Path), metavar="DIR", help="The lake.")
    @click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Settings file, instead of callfold.toml here.",
    )
    @click.option("--debug", is_flag=True, help="Show tracebacks and a detailed log.")
    @wraps(function)
    def with_common_options(*, debug: bool, **options: Any) -> Any:
        # `main` has already acted on --debug: it must hold while the options are still being read.
        return function(**options)

    return with_common_options


def broker_option(function: Function) -> Function:
    """`--broker`, for the commands that speak to Kafka."""
    return click.option("--broker", metavar="ADDRESS", help="`embedded` or kafka://host:port[;host:port].")(
        function
    )


def http_options(function: Function) -> Function:
    """`--host` and `--port`, for the commands that listen."""
    function = click.option("--port", type=int, help="Port of the collector.")(function)
    return click.option("--host", metavar="ADDRESS", help="Address the collector listens on.")(function)


def settings_of(lake: Path | None, config: Path | None, **options: object) -> "Settings":
    """The settings in force for this command line; `options` are flat setting names, None is "not given"."""
    from pipeline.providers import provider_names
    from pipeline.settings import load_settings

    return load_settings({"lake": lake, **options}, os.environ, config, provider_names())


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there complete or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise click.FileError(str(path), error.strerror) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def progress_on_terminal(label: str) -> Iterator[Progress]:
    """A progress bar on stderr if that is a terminal, else silence: logs and pipes want no bars."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def count_on_terminal(unit: str) -> Iterator[Callable[[int], None]]:
    """A running count on stderr if that is a terminal, for work whose size is not known beforehand."""
    if not sys.stderr.isatty():
        yield lambda more: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} " + unit), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(unit, total=None)
        waiting = 0

        def count(more: int) -> None:
            # Each update takes a lock, and callers count one by one.
            nonlocal waiting
            waiting += more
            if waiting >= 100:
                bar.advance(task, waiting)
                waiting = 0

        yield count
