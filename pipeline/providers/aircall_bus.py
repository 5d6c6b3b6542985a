"""Aircall Bus: https://bus.aircall.io/website/docs/documentation/dialer/call-status (looked at 2026-11-21).

A bus in the agent's browser, brought here by a relay. Its events name no call and no time, so one agent's
events are a stream, and calls are cut out of it. What an event does to the cut stands here (`cut`); the cutting
itself is a fold over the whole stream.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec

from pipeline.model import CallEvent, Rejection, State, Webhook
from pipeline.providers._payload import (
    LONGEST_TEXT,
    Text,
    bad_shape,
    canonical,
    decode_any,
    decode_exactly,
    digest,
    event_id,
    instant,
    is_blank,
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


class _Payload(msgspec.Struct, gc=False):
    status: Any = None
    flow: Any = None
    type: Any = None
    call_uuid: Any = msgspec.field(name="callUuid", default=None)
    from_: Any = msgspec.field(name="from", default=None)
    to: Any = None
    metadata: Any = None


class _Told(msgspec.Struct, gc=False):
    type: Text
    payload: _Payload


# As whole floats they are the same numbers.
_Whole = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]


class _Envelope(msgspec.Struct, gc=False):
    """What the relay sends."""

    event: _Told
    agent_id: Text | _Whole
    session_id: Text
    seq: _Whole
    sent_at: Any = None


_EXACT: Final = msgspec.json.Decoder(_Envelope)


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
    # Skipped fields are not looked at for what is no UTF-8, nor for numbers without end.
    body = webhook.body
    exact = decode_exactly(_EXACT, body) if len(body) <= LONGEST_TEXT and body.isascii() else None
    if exact is None:
        return _plain_events(webhook)
    told, session_id, seq = exact.event, exact.session_id, exact.seq
    # What `text` makes of a whole number.
    agent_id, kind = f"{exact.agent_id}", told.type
    if not (agent_id and session_id and kind) or is_blank(agent_id) or is_blank(session_id) or is_blank(kind):
        return _plain_events(webhook)
    identity = digest(f"aircall_bus\x1f{agent_id}\x1f{session_id}\x1f{seq}".encode())
    event = _event(webhook, identity, kind, agent_id, instant(exact.sent_at), session_id, seq)
    p = told.payload
    if kind == "DIALER.CALL_STATUS":
        _add_status(event, text(p.status), text(p.flow))
    else:
        _add_payload(event, kind, p.status, p.flow, p.type, p.call_uuid, p.from_, p.to, p.metadata)
    return [event]


def _plain_events(webhook: Webhook) -> list[CallEvent] | Rejection:
    """The same for a webhook of any shape."""
    payload = decode_any(webhook.body)
    if isinstance(payload, Rejection):
        return payload
    if not isinstance(payload, dict):
        return bad_shape(None, "a bus event is a JSON object")
    told = payload.get("event", payload)
    kind = text(told.get("type")) if isinstance(told, dict) else None
    if kind is None:
        return bad_shape("event.type", "a bus event is an object with a `type`")
    agent_id = _agent_id(payload, webhook.query)
    if agent_id is None:
        return missing("agent_id", "neither the envelope nor the query names the agent")
    envelope = payload if told is not payload else {}
    sent_us, session_id = instant(envelope.get("sent_at")), text(envelope.get("session_id"))
    seq = _whole(envelope.get("seq"))
    if session_id is not None and seq is not None:
        identity = event_id("aircall_bus", agent_id, session_id, seq)
    else:
        at_us = webhook.received_us if sent_us is None else sent_us
        identity = event_id("aircall_bus", agent_id, at_us, canonical(_without_numbers(told)))
    event = _event(webhook, identity, kind, agent_id, sent_us, session_id, seq)
    names = ("status", "flow", "type", "callUuid", "from", "to", "metadata")
    _add_payload(event, kind, *map(mapping(told.get("payload")).get, names))
    return [event]


def _event(
    webhook: Webhook,
    identity: str,
    kind: str,
    agent_id: str,
    sent_us: int | None,
    session_id: str | None,
    seq: int | None,
) -> CallEvent:
    return CallEvent(
        event_id=identity,
        provider="aircall_bus",
        stream_key=_stream_key(agent_id),
        event_type=kind,
        at_us=webhook.received_us if sent_us is None else sent_us,
        received_us=webhook.received_us,
        at_source="received" if sent_us is None else "provider",
        start_is_first_event=True,
        agent_id=agent_id,
        channel="phone",
        session_id=session_id,
        seq=seq,
    )


def _add_payload(
    event: CallEvent,
    kind: str,
    status: Any,
    flow: Any,
    of: Any,
    uuid: Any,
    caller: Any,
    called: Any,
    metadata: Any,
) -> None:
    """What the fields of the payload say, whatever is in them."""
    if kind == "DIALER.CALL_STATUS":
        _add_status(event, text(status), text(flow))
    elif kind == "DIALER.DIALING":
        event.cut, event.state, event.direction = "begin", "queued", "outbound"
        event.from_number, event.to_number = _address(caller), _address(called)
    elif kind == "DIALER.INCOMING":
        event.cut, event.state, event.ringing_us = "begin", "ringing", event.at_us
        event.from_number, event.to_number = _address(caller), _address(called)
        event.direction = "internal" if text(of) == "internal" else "inbound"
        event.provider_call_id = text(uuid)
    elif kind == "DIALER.SYNC":
        # "You should NOT rely on the metadata to determine the status of the call."
        if metadata and isinstance(metadata, dict):
            uuid, caller, called = metadata.get("callUuid"), metadata.get("from"), metadata.get("to")
        event.cut, event.provider_call_id = "sync", text(uuid)
        event.from_number, event.to_number = _address(caller), _address(called)
    elif kind not in OTHER_EVENTS:
        event.is_unknown = True


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
    state, cut, direction = step
    event.state, event.cut = state, cut
    if direction is not None:
        event.direction = direction
    if status == "ringing":
        event.ringing_us = event.at_us if state == "ringing" else None
    elif cut == "connected":
        # A second leg is connected only to a call that was: evidence, but not the time of its answer.
        event.answer_evidence = True
        event.answered_us = None if is_transfer else event.at_us
    elif state == "wrap_up":
        event.hangup_us = event.at_us
    elif state == "ended":
        # `ended` covers hang-up, reject and lost connection alike; no reason is given.
        event.ended_us = event.hangup_us = event.at_us
        event.unanswered_outcome = "no_answer"


def _address(value: Any) -> str | None:
    # Agents are addressed as `client:<agent id>`, which is nobody's telephone number.
    found = text(value)
    return None if found is None or found.startswith("client:") else found
