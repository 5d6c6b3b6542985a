"""Aircall Bus: https://bus.aircall.io/website/docs/documentation/dialer/call-status (looked at 2026-11-21).

A bus in the agent's browser, brought here by a relay. Its events name no call and no time, so one agent's
events are a stream, and calls are cut out of it. What an event does to the cut stands here (`cut`); the cutting
itself is a fold over the whole stream.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from pipeline.model import CallEvent, Rejection, State, Webhook
from pipeline.providers._payload import (
    bad_shape,
    canonical,
    decode_any,
    event_id,
    instant,
    mapping,
    missing,
    number,
    text,
)
from pipeline.providers._redacted import Redacted
from pipeline.providers._signature import is_bearer

KEYED_BY: Final[Literal["call", "agent"]] = "agent"
KEPT_HEADERS: Final[tuple[str, ...]] = ()
_IDS: Final = (("callUuid",), ("metadata", "callUuid"), ("userId",))
REDACTED: Final = Redacted(
    numbers=frozenset({"from", "to", "external", "transferer", "number", "normalized"}),
    no_numbers=("client:",),
    keys=(
        ("agent_id",),
        ("session_id",),
        *((*envelope, "payload", *where) for envelope in ((), ("event",)) for where in _IDS),
    ),
)


class Step(NamedTuple):
    """What a status does to the call and to the cut."""

    state: State | None
    cut: str | None
    direction: Literal["inbound", "outbound"] | None = None


# https://bus.aircall.io/website/docs/documentation/dialer/call-status, flow `regular`
STEP: Final[dict[str, Step]] = {
    "connecting": Step("queued", "begin", "outbound"),
    "accepting": Step("ringing", "begin", "inbound"),
    "ringing": Step("ringing", None),
    "connected": Step("in_progress", "connected"),
    "hanging": Step("wrap_up", None),
    "mandatoryTagging": Step("wrap_up", None),
    "merging": Step(None, "merging"),
    "ended": Step("ended", "end"),
    "idle": Step("ended", "end"),
}
# In flow `warmTransfer` the ringing and the answer are those of the second leg, not the call's.
TRANSFER_STEP: Final[dict[str, Step]] = STEP | {
    "ringing": Step(None, None),
    "connected": Step("in_progress", "connected"),
}


# Statuses on the way of a transfer, which change nothing for the call itself.
TRANSFER_STATUSES: Final = frozenset({"startingWarmTransfer", "swapping"})
# Events that are about the agent.
OTHER_EVENTS: Final = frozenset({"USER.AVAILABILITY_CHANGED"})


def _agent_id(payload: Any, query: Mapping[str, str]) -> str | None:
    found = mapping(payload)
    if "event" not in found and text(query.get("agent_id")) is None:
        # An availability change names its user even when nobody put an address to it.
        return text(mapping(found.get("payload")).get("userId"))
    return text(found.get("agent_id")) or text(query.get("agent_id"))


def _stream_key(agent_id: str) -> str:
    # Two colons: no call key of a `callUuid` looks like it.
    return f"aircall_bus:agent:{agent_id}"


def is_signed(secret: bytes, headers: Mapping[str, str], body: bytes, now_us: int) -> bool:
    """The bus signs nothing: the relay page carries a token."""
    return is_bearer(secret, headers)


def stream_key(body: bytes, query: Mapping[str, str]) -> str | None:
    """The key of the agent's stream, if the webhook says whose it is."""
    payload = decode_any(body)
    agent_id = None if isinstance(payload, Rejection) else _agent_id(payload, query)
    return None if agent_id is None else _stream_key(agent_id)


def events(webhook: Webhook) -> list[CallEvent] | Rejection:
    """One event for one webhook, whether in the relay's envelope or bare."""
    payload = decode_any(webhook.body)
    if isinstance(payload, Rejection):
        return payload
    if not isinstance(payload, dict):
        return bad_shape(None, "a bus event is a JSON object")
    told = payload.get("event", payload)
    if not isinstance(told, dict) or text(told.get("type")) is None:
        return bad_shape("event.type", "a bus event is an object with a `type`")
    agent_id = _agent_id(payload, webhook.query)
    if agent_id is None:
        return missing("agent_id", "neither the envelope nor the query names the agent")
    return [_event(webhook, payload, told, agent_id)]


def _event(
    webhook: Webhook, envelope: Mapping[str, Any], told: Mapping[str, Any], agent_id: str
) -> CallEvent:
    sent_us = instant(envelope.get("sent_at")) if told is not envelope else None
    session_id = text(envelope.get("session_id")) if told is not envelope else None
    seq = _whole(envelope.get("seq")) if told is not envelope else None
    at_us = webhook.received_us if sent_us is None else sent_us
    if session_id is not None and seq is not None:
        identity = event_id("aircall_bus", agent_id, session_id, seq)
    else:
        identity = event_id("aircall_bus", agent_id, at_us, canonical(_without_numbers(told)))
    kind, payload = text(told.get("type")) or "unknown", mapping(told.get("payload"))
    event = CallEvent(
        event_id=identity,
        provider="aircall_bus",
        stream_key=_stream_key(agent_id),
        event_type=kind,
        at_us=at_us,
        received_us=webhook.received_us,
        at_source="received" if sent_us is None else "provider",
        start_is_first_event=True,
        agent_id=agent_id,
        channel="phone",
        session_id=session_id,
        seq=seq,
    )
    if kind == "DIALER.CALL_STATUS":
        _add_status(event, text(payload.get("status")), text(payload.get("flow")))
    elif kind in ("DIALER.DIALING", "DIALER.INCOMING"):
        _add_begin(event, payload, is_incoming=kind == "DIALER.INCOMING")
    elif kind == "DIALER.SYNC":
        _add_sync(event, mapping(payload.get("metadata")) or payload)
    else:
        event.is_unknown = kind not in OTHER_EVENTS
    return event


def _without_numbers(value: Any) -> Any:
    # The privacy settings change them in what is kept, and what is kept is replayed.
    if isinstance(value, dict):
        return {k: _without_numbers(item) for k, item in value.items() if k not in REDACTED.numbers}
    return [_without_numbers(item) for item in value] if isinstance(value, list) else value


def _whole(value: Any) -> int | None:
    found = number(value)
    return int(found) if found is not None and found.is_integer() else None


def _add_status(event: CallEvent, status: str | None, flow: str | None) -> None:
    event.raw_status = status
    is_transfer = flow == "warmTransfer"
    step = (TRANSFER_STEP if is_transfer else STEP).get(status or "")
    if step is None:
        event.is_unknown = status not in TRANSFER_STATUSES
        return
    event.state, event.cut, event.direction = step.state, step.cut, step.direction
    if step.state == "ringing" and status == "ringing":
        event.ringing_us = event.at_us
    elif step.cut == "connected":
        # A second leg is connected only to a call that was: evidence, but not the time of its answer.
        event.answer_evidence = True
        event.answered_us = None if is_transfer else event.at_us
    elif step.state == "wrap_up":
        event.hangup_us = event.at_us
    elif step.state == "ended":
        # `ended` covers hang-up, reject and lost connection alike; no reason is given.
        event.ended_us = event.hangup_us = event.at_us
        event.unanswered_outcome = "no_answer"


def _add_begin(event: CallEvent, payload: Mapping[str, Any], is_incoming: bool) -> None:
    event.cut = "begin"
    event.from_number, event.to_number = _address(payload.get("from")), _address(payload.get("to"))
    if not is_incoming:
        event.state, event.direction = "queued", "outbound"
        return
    event.state, event.ringing_us = "ringing", event.at_us
    event.direction = "internal" if text(payload.get("type")) == "internal" else "inbound"
    event.provider_call_id = text(payload.get("callUuid"))


def _add_sync(event: CallEvent, metadata: Mapping[str, Any]) -> None:
    # "You should NOT rely on the metadata to determine the status of the call."
    event.cut = "sync"
    event.provider_call_id = text(metadata.get("callUuid"))
    event.from_number, event.to_number = _address(metadata.get("from")), _address(metadata.get("to"))


def _address(value: Any) -> str | None:
    # Agents are addressed as `client:<agent id>`, which is nobody's telephone number.
    found = text(value)
    return None if found is None or found.startswith("client:") else found
