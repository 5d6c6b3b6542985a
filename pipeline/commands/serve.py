"""The commands that run until they are told to stop."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.options import broker_option, command, http_options, settings_of
from pipeline.logs import LogSetup, logging_setup, set_up_logging

if TYPE_CHECKING:
    from pipeline.settings import Settings


def _workers_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--workers",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        metavar="N",
        help="Worker processes on this machine; more than one needs Apache Kafka.",
    )(function)


def _log_as_service(settings: "Settings") -> None:
    """A service says when it starts, what it refuses and when it stops; the other commands print instead."""
    set_up_logging(LogSetup(settings.log_format, logging_setup().level or logging.INFO))


@command(example="CALLFOLD_FREECLIMB_AUTH=none callfold serve --lake ./lake --port 8080")
@broker_option
@http_options
@_workers_option
def serve(
    lake: Path | None,
    config: Path | None,
    broker: str | None,
    host: str | None,
    port: int | None,
    workers: int,
) -> int:
    """Run everything on one machine.

    Collector, worker, compaction and scheduled reports, and with broker = "embedded" the broker itself.
    Ctrl-C or SIGTERM drains, flushes and leaves.
    """
    settings = settings_of(lake, config, broker=broker, http_host=host, http_port=port)
    _log_as_service(settings)
    from pipeline.stream.serve import serve as run

    return run(settings, workers)


@command(example="callfold collect --broker kafka://localhost:9092 --host 0.0.0.0 --port 8080")
@broker_option
@http_options
def collect(
    lake: Path | None, config: Path | None, broker: str | None, host: str | None, port: int | None
) -> int:
    """Run a collector alone: HTTP in, Kafka out."""
    settings = settings_of(lake, config, broker=broker, http_host=host, http_port=port)
    _log_as_service(settings)
    from pipeline.stream.serve import collect as run

    return run(settings)


@command(example="callfold work --broker kafka://localhost:9092 --lake ./lake")
@broker_option
@_workers_option
def work(lake: Path | None, config: Path | None, broker: str | None, workers: int) -> int:
    """Run workers alone: Kafka in, lake out.

    On all machines together as many as there are partitions, at most. With --workers N a supervisor starts N
    processes, starts those that die again, and stops all of them in order; it gives up when one keeps dying.
    """
    settings = settings_of(lake, config, broker=broker)
    _log_as_service(settings)
    from pipeline.stream.serve import work as run

    return run(settings, workers)
