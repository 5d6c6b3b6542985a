"""A record begins as a copy of a blank one: no field of it may be forgotten."""

from typing import Any

import pytest
from msgspec.structs import asdict

from pipeline.assemble import fold as folding
from pipeline.model import CallEvent, CallRecord


def test_the_fold_fills_in_every_field(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: Any = object()
    monkeypatch.setattr(
        folding, "_BLANK", CallRecord(**dict.fromkeys(CallRecord.__struct_fields__, forgotten))
    )
    event = CallEvent(
        event_id="1",
        provider="recho",
        stream_key="recho:c",
        call_id="c",
        event_type="x",
        at_us=1,
        received_us=2,
    )
    record = folding.fold([event], as_of_us=3, idle_us=10)
    assert [name for name, value in asdict(record).items() if value is forgotten] == []
