"""How Callfold's Kafka clients are let in: one set of settings, in the words of each client.

aiokafka is the client of the collector, the producer and the doctor, and Faust's own; librdkafka serves only as the
embedded broker, which needs none of this. A wrong password or an untrusted certificate is told here, in one line:
the clients themselves would log it and then report only that no broker could be reached.
"""

import asyncio
import logging
import ssl
from collections.abc import Mapping
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from pipeline.errors import CallfoldError, DestinationUnavailable, UserError
from pipeline.kafka_security import tls_context
from pipeline.settings import Settings

log = logging.getLogger(__name__)

#: how long one broker has to answer before it counts as away
ACCESS_SECONDS = 5.0

ClientOptions = Mapping[str, Any]
"""What a client of aiokafka is given beside the address of its brokers. It holds the password: never log it."""
PLAINTEXT: ClientOptions = {"security_protocol": "PLAINTEXT"}


class BrokerRefused(CallfoldError):  # noqa: N818  says what is the case, as its sibling does
    """Kafka is there and does not let us in: trying again without a change cannot help."""


def bootstrap_servers(broker_url: str) -> str:
    """`kafka://a:1;kafka://b:2` or `kafka://a:1;b:2` as the host list that Kafka clients take."""
    return ",".join(part.removeprefix("kafka://") for part in broker_url.split(";"))


def client_options(settings: Settings) -> ClientOptions:
    """What every client of aiokafka needs, by these settings. Raises `UserError` where a TLS file is not usable."""
    if settings.kafka_security == "plaintext":
        return PLAINTEXT
    options: dict[str, Any] = {"security_protocol": settings.kafka_security.upper()}
    context = _tls(settings)
    if context is not None:
        options["ssl_context"] = context
    if settings.kafka_security.startswith("sasl"):
        options["sasl_mechanism"] = settings.kafka_mechanism.upper()
        options["sasl_plain_username"] = settings.kafka_username
        options["sasl_plain_password"] = settings.kafka_password
    return options


def faust_credentials(settings: Settings) -> Any:
    """The same for a Faust application; None without TLS and without a login."""
    import faust

    context = _tls(settings)
    if settings.kafka_security.startswith("sasl"):
        return faust.SASLCredentials(
            username=settings.kafka_username,
            password=settings.kafka_password,
            mechanism=settings.kafka_mechanism.upper(),
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context)


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if not settings.kafka_security.endswith("ssl"):
        return None
    try:
        return tls_context(settings.kafka_ca_file, settings.kafka_cert_file, settings.kafka_key_file)
    except (ValueError, OSError) as problem:
        raise UserError(f"settings: {problem}") from problem


async def check_access(broker_url: str, options: ClientOptions = PLAINTEXT) -> None:
    """Returns once one of the brokers has let us in.

    Raises `BrokerRefused` if a broker is there and refuses, and `DestinationUnavailable` if none can be reached.
    """
    refusals, problems = [], []
    for host, port, _ in collect_hosts(bootstrap_servers(broker_url), randomize=False):
        try:
            async with asyncio.timeout(ACCESS_SECONDS):
                await _enter(host, port, options)
        except (KafkaError, OSError, ValueError) as problem:
            told = _refusal(problem, options)
            if told is None:
                problems.append(f"{host}:{port} {_absence(problem)}")
            else:
                refusals.append(f"Kafka at {host}:{port} {told}")
        else:
            return
    if refusals:
        raise BrokerRefused("; ".join(refusals))
    raise DestinationUnavailable(
        f"Kafka at {bootstrap_servers(broker_url)} cannot be reached: {'; '.join(problems)}"
    )


async def _enter(host: str, port: int, options: ClientOptions) -> None:
    connection = await create_conn(host, port, **options)
    try:
        # A broker that wants a login hangs up at the first request that is not about one.
        await connection.send(MetadataRequest([]))
    finally:
        connection.close()


def refuse_early(settings: Settings, broker_url: str) -> None:
    """Raises `BrokerRefused` if Kafka does not let us in; one that is away now is waited for later."""
    try:
        asyncio.run(check_access(broker_url, client_options(settings)))
    except DestinationUnavailable as away:
        log.warning("%s", away)


def _refusal(problem: Exception, options: ClientOptions) -> str | None:
    """What a broker refused, and what to do about it; None where it did not refuse."""
    if isinstance(problem.__cause__, ssl.SSLError):
        problem = problem.__cause__  # refused after the handshake, as a missing certificate is
    if isinstance(problem, ssl.SSLCertVerificationError):
        if "mismatch" in problem.verify_message:
            return (
                f"shows a certificate for another name ({problem.verify_message}): "
                "set broker (CALLFOLD_BROKER) to the name that the certificate is for"
            )
        return (
            f"shows a certificate that is not trusted ({problem.verify_message}): set kafka.ca_file "
            "(CALLFOLD_KAFKA_CA_FILE) to the authority that signed it"
        )
    if isinstance(problem, ssl.SSLError):
        return (
            f"does not agree on TLS ({problem.reason or problem}): see whether this port speaks TLS, and whether "
            "it asks for a certificate (kafka.cert_file, kafka.key_file)"
        )
    mechanism, user = options.get("sasl_mechanism"), options.get("sasl_plain_username")
    if isinstance(problem, UnsupportedSaslMechanismError):
        return f"takes no login by {mechanism}: set kafka.mechanism to one that it offers"
    if isinstance(problem, SaslAuthenticationFailed | IllegalSaslStateError):
        return (
            f"refuses the login of {user!r} by {mechanism}: the name or the password is wrong "
            "(kafka.username, CALLFOLD_KAFKA_PASSWORD)"
        )
    if isinstance(problem, ValueError):
        return f"did not prove that it knows the password of {user!r} ({problem})"
    return None


def _absence(problem: Exception) -> str:
    if isinstance(problem, TimeoutError):
        return f"does not answer within {ACCESS_SECONDS:g} s"
    if isinstance(problem, KafkaConnectionError | ConnectionResetError):
        return "hangs up: see whether kafka.security (and kafka.cert_file) is what this port wants"
    return str(problem)
