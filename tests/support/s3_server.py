"""S3 on this machine: moto's server, whose answers a test may spoil; or, for one run of all, any that there is.

`CALLFOLD_TEST_S3=http://…` with the AWS variables names another one (MinIO, versitygw …): tests that spoil answers are
skipped there.
"""

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from pipeline.storage.place import remote_path

Environ = dict[str, Any]
Spoil = Callable[[Environ], str | None]
"""Looks at a request; the status that is answered instead (`503 Slow Down`), or None. May wait, too."""

_numbers = itertools.count()


class _Silent(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        """Nothing: the requests are kept instead."""


class S3Server:
    """The server and its buckets."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=_Silent)
        self._spoil: Spoil | None = None
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}")
        status = self._spoil(environ) if self._spoil is not None else None
        if status is None:
            answer: Iterable[bytes] = self._app(environ, start_response)
            return answer
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(status, [("Content-Type", "application/xml")])
        if environ["REQUEST_METHOD"] == "HEAD":
            return []
        code = "".join(status.split()[1:])
        return [f"<Error><Code>{code}</Code><Message>{status[4:]}</Message></Error>".encode()]

    @contextmanager
    def spoilt(self, spoil: Spoil) -> Iterator[None]:
        """Every request meanwhile is looked at first."""
        self._spoil = spoil
        try:
            yield
        finally:
            self._spoil = None

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server | None]:
    """The server, with what the AWS tools need in the environment; None is another one, which cannot be spoilt."""
    elsewhere = os.environ.get("CALLFOLD_TEST_S3")
    with pytest.MonkeyPatch.context() as environment:
        if elsewhere:
            environment.setenv("AWS_ENDPOINT_URL", elsewhere)
            yield None
            return
        server = S3Server()
        environment.setenv("AWS_ENDPOINT_URL", server.url)
        environment.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "made-up-for-the-test")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield server
        server.stop()


@pytest.fixture
def spoilable(s3: S3Server | None) -> S3Server:
    """The server, where its answers can be spoilt."""
    if s3 is None:
        pytest.skip("this server cannot be told to fail")
    return s3


@pytest.fixture
def bucket(s3: S3Server | None) -> Any:
    """The path of a new bucket."""
    name = f"callfold-test-{os.getpid()}-{next(_numbers)}"
    boto3.client("s3").create_bucket(Bucket=name)
    return remote_path(f"s3://{name}")
