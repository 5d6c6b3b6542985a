"""The providers' webhooks as far as they are read, and their decoders."""

from datetime import datetime
from typing import Any

import msgspec

PROVIDERS = ("interactly", "recho", "whippy", "aircall_bus", "freeclimb")


class InteractlyCall(msgspec.Struct, rename="camel"):
    """Of `message.call`."""

    id: str
    status: str | None = None
    direction: str | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None
    phone_call_status: str | None = None
    assistant_call_duration: float = 0


class InteractlyMessage(msgspec.Struct):
    """Of `message`."""

    type: str
    timestamp: int
    call: InteractlyCall


class Interactly(msgspec.Struct):
    """https://docs.interactly.ai/webhooks/events/introduction"""

    message: InteractlyMessage


class RechoData(msgspec.Struct, rename="camel"):
    """Of `body.data`."""

    call_id: str
    call_status: str | None = None


class RechoBody(msgspec.Struct):
    """Of `body`."""

    data: RechoData


class Recho(msgspec.Struct, rename="camel"):
    """https://dev-developers.recho-ai.com/en/webhooks/call-status"""

    event_type: str
    body: RechoBody


class WhippyData(msgspec.Struct):
    """Of `data`."""

    id: str
    delivery_status: str | None = None
    direction: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


class Whippy(msgspec.Struct):
    """https://docs.whippy.ai/docs/calls"""

    event: str
    data: WhippyData
    created_at: datetime | None = None


class BusPayload(msgspec.Struct, rename={"uuid": "callUuid"}):
    """Of a bus event."""

    status: str | None = None
    flow: str | None = None
    type: str | None = None
    uuid: str | None = None
    metadata: dict[str, Any] | None = None


class BusEvent(msgspec.Struct):
    """https://bus.aircall.io/website/docs/documentation/dialer/call-status"""

    type: str
    payload: BusPayload


class Bus(msgspec.Struct):
    """In the relay's envelope, or bare."""

    agent_id: int | str | None = None
    sent_at: datetime | None = None
    event: BusEvent | None = None
    type: str | None = None
    payload: BusPayload | None = None


class FreeClimb(msgspec.Struct, rename="camel"):
    """https://docs.freeclimb.com/reference/callstatus"""

    call_id: str
    request_type: str
    call_status: str | None = None
    direction: str | None = None
    call_duration: str | None = None
    call_ended_reason: str | None = None


DECODERS = {
    name: msgspec.json.Decoder(shape)
    for name, shape in zip(PROVIDERS, (Interactly, Recho, Whippy, Bus, FreeClimb), strict=True)
}
