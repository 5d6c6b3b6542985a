"""Where the collector listens: an address, a queue before it, and files enough for all who come."""

import asyncio
import logging
import os
import resource
import socket

from aiohttp import web

from pipeline.collect.connections import Connections

log = logging.getLogger(__name__)

ACCEPTED_AT_ONCE = 8
"""Connections accepted between two looks at those that are open. With all that wait, a flood would push out a sender
whose request has arrived and has not been looked at."""
WAITING_AT_MOST = 1024
SPARE_FILES = 200
"""What a collector has open beside its senders' connections: Kafka's, the spool, this process's own; generously."""


class ConnectionsSite(web.BaseSite):
    """Listens on an address, as aiohttp's `TCPSite` does, for connections of ours."""

    def __init__(self, runner: web.AppRunner, connections: Connections, host: str, port: int) -> None:
        super().__init__(runner)
        assert runner.server is not None
        connections.serve(runner.server)
        self._connections = connections
        self._address = host, port

    @property
    def name(self) -> str:
        """Its address."""
        return "http://{}:{}".format(*self._address)

    async def start(self) -> None:
        """Listen. Raises `OSError` if the address cannot be had."""
        await super().start()
        _allow_files(self._connections.limit + SPARE_FILES)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connections, *self._address, backlog=ACCEPTED_AT_ONCE)
        for listening in self._server.sockets:
            # The kernel may have more of them waiting than asyncio takes at once; a copy is the same socket.
            with socket.socket(fileno=os.dup(listening.fileno())) as same:
                same.listen(WAITING_AT_MOST)


def _allow_files(count: int) -> None:
    """Let this process have so many files open, or a flood of connections would leave none for Kafka and the spool."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < count:
        log.warning(
            "only %d files may be open here, and %d may be needed: raise the limit (ulimit -Hn), or lower "
            "http.max_connections (CALLFOLD_HTTP_MAX_CONNECTIONS)",
            most,
            count,
        )
