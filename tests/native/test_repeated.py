"""A value that was read before and is not looked through again changes nothing of what is read."""

import json
import random
from typing import Any

import msgspec
import pytest
from bent_webhooks import simulated

from pipeline.model import Rejection, Webhook
from pipeline.providers import providers

native = pytest.importorskip("pipeline.native._native")
EVENTS = providers()["interactly"].events
FIELD = ',"assistant":'


def assistant(name: str, levels: int = 2, size: int = 300) -> str:
    """A configuration with texts that look like the end of it, or like another one."""
    texts = ['}}},"assistant":{', ',"assistant":', "\\", '"', "[{", "é\n"]
    deep: Any = {}
    for _ in range(levels - 2):
        deep = [deep]
    told = {"_id": name, "texts": texts, "deep": deep, "prompt": "x" * size}
    return json.dumps(told, separators=(",", ":"))


KNOWN = (
    *(assistant("first"), assistant("second"), assistant("deep", 150), assistant("large", size=16_000)),
    # Of the same beginning; too short and too long to be remembered.
    *(assistant("1" * 80), assistant("1" * 80, 3), assistant("1" * 80)[:-1] + ',"more":{}}'),
    *('{"_id":"small"}', assistant("huge", size=17_000), "null", "[]", "5", '"text"'),
)


def body(value: str, before: str = "", after: str = "") -> str:
    call = '{"id":"c-1","teamId":"t","callType":"phone","direction":"inbound","status":"ongoing"}'
    told = f'"timestamp":1772409715445,"type":"status-update","call":{call}'
    return f'{{"message":{{{told}{before}{FIELD}{value}{after}}}}}'


def decoded(text: str) -> Any:
    return native.decode("interactly", 1_772_409_715_556_000, text.encode("utf-8", "surrogatepass"), {})


def is_read(text: str) -> bool:
    """Whether an event is given; checks that it is Python's, and that it is given where nothing was seen before."""
    found = decoded(text)
    # Spaced otherwise it is not looked up.
    assert repr(found) == repr(decoded(text.replace(FIELD, ', "assistant":'))), text
    if found is None:
        return False
    meant = EVENTS(Webhook("interactly", 1_772_409_715_556_000, text.encode()))
    assert not isinstance(meant, Rejection), text
    assert repr([found]) == repr(meant), text
    return True


def prime() -> None:
    for value in KNOWN:
        assert decoded(body(value)) is not None


@pytest.mark.parametrize("value", KNOWN)
def test_what_was_read_once_is_read_again(value: str) -> None:
    for _ in range(3):
        assert is_read(body(value))
        assert is_read(body(value, '},"x":{"a":1', ',"more":"é"'))
        assert is_read(body(KNOWN[0]))


# What may not stand behind it, and what may.
WRONG = ("}", "]", "{", '"', ",", "5", "{}", ',"a":', "\\", "\x00", ',"type":5', " 1")
RIGHT = ("", " ", "\n", ',"more":1')


@pytest.mark.parametrize("value", [value for value in KNOWN if value.startswith("{")])
def test_what_stands_behind_it_is_looked_at(value: str) -> None:
    prime()
    for after in (*WRONG, value, FIELD + value):
        assert not is_read(body(value, after=after)), after
    for after in (*RIGHT, f',"x":{{"a":1{FIELD}{value}}}'):
        assert is_read(body(value, after=after)), after
    for end in range(2, len(value), max(1, len(value) // 300)):
        assert not is_read(body(value[:end])), end


def test_what_is_no_json_is_not_remembered() -> None:
    for wrong in ("01", "tru", '"\n"', "1.", "[1,]", "{,}"):
        value = assistant("wrong")[:-1] + f',"wrong":{wrong}}}'
        assert [is_read(body(value)) for _ in range(3)] == [False] * 3


@pytest.mark.parametrize("levels", [2, 10, 100, 150])
def test_its_levels_count_where_it_stands(levels: int) -> None:
    value = assistant("levels", levels)
    assert is_read(body(value))
    for more in range(max(0, 190 - levels), 205 - levels):
        nested = body("5", f',"x":{"[" * more}{{"a":1{FIELD}{value}}}{"]" * more}')
        # The message and the whole are two levels, and the object that holds it is one.
        assert is_read(nested) is (more + levels + 3 <= 200), more


def test_spliced_bodies_are_read_as_if_nothing_was_seen() -> None:
    prime()
    dice, read = random.Random("spliced"), 0
    few = [value for value in KNOWN if len(value) < 1_000]
    for _ in range(30_000):
        text = body(
            dice.choice(few), dice.choice(["", ',"x":[]', ',"x":{}', ',"x":""']), dice.choice(["", ',"y":1'])
        )
        for _ in range(dice.choice([0, 1, 1, 2])):
            pieces = (
                FIELD,
                dice.choice(few),
                dice.choice(few)[:-1],
                "{",
                "}",
                "[",
                "]",
                '"',
                "\\",
                ",",
                ":",
                "5",
                "é",
            )
            piece = dice.choice([*pieces, FIELD + dice.choice(few)])
            # At times just before or behind what is looked for.
            places = [dice.randrange(len(text) + 1), text.find(FIELD), text.find(FIELD) + len(FIELD)]
            place = max(0, dice.choice(places))
            text = text[:place] + piece + text[place + dice.choice([0, 0, 0, 1, len(piece)]) :]
        read += is_read(text)
    assert 5_000 < read < 25_000


def test_simulated_traffic_is_read_alike_in_any_order(tmp_path: Any) -> None:
    webhooks = simulated("interactly", 400, 8, tmp_path)
    for seed in range(3):
        dice = random.Random(seed)
        for webhook in dice.sample(webhooks, len(webhooks)):
            found = native.decode(webhook.provider, webhook.received_us, webhook.body, {})
            other = webhook.body.replace(FIELD.encode(), b', "assistant":')
            assert repr(found) == repr(native.decode(webhook.provider, webhook.received_us, other, {}))
            assert found is None or repr([found]) == repr(EVENTS(msgspec.structs.replace(webhook)))
