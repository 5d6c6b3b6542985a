"""How the text of one setting becomes its value.

Each reader takes what an option, the environment or the file gave, and raises `ValueError` whose text
completes the sentence "<setting>: '<value>' …".
"""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from croniter import croniter

from pipeline.storage.place import is_address, remote_path

EMBEDDED = "embedded"


def number_reader(low: float, high: float = math.inf, above: bool = False) -> Callable[[object], float]:
    """A reader of finite numbers of at least `low`, or over it."""

    def read(value: object) -> float:
        try:
            number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]  # checked here
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number) or not low <= number <= high or (above and number == low):
            raise ValueError(f"is not a number {'over' if above else 'of at least'} {low:g}")
        return number

    return read


def whole_reader(low: int, high: int) -> Callable[[object], int]:
    """A reader of whole numbers within both bounds."""

    def read(value: object) -> int:
        number = None if isinstance(value, bool | float) else str(value).strip()
        if number is None or not re.fullmatch(r"-?\d{1,12}", number) or not low <= int(number) <= high:
            raise ValueError(f"is not a whole number from {low} to {high}")
        return int(number)

    return read


def choice_reader(*choices: str) -> Callable[[object], str]:
    """A reader of one of these words."""

    def read(value: object) -> str:
        if value not in choices:
            raise ValueError(f"is not one of {', '.join(choices)}")
        return str(value)

    return read


def read_text(value: object) -> str:
    """A text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("is not a text")
    return value.strip()


def optional(read: Callable[[object], Any]) -> Callable[[object], Any]:
    """A reader to which the empty text is the absence of a value."""
    return lambda value: None if value == "" else read(value)


def read_password(value: object) -> str:
    """A password as it is given, spaces included."""
    if isinstance(value, str):
        return value
    raise ValueError("is not a text")


def read_path(value: object) -> Path:
    """A path; `~` is the user's home."""
    return Path(value if isinstance(value, Path) else read_text(value)).expanduser()


def read_lake(value: object) -> Path:
    """A folder, or `s3://bucket/prefix`."""
    text = str(value)
    return remote_path(text.strip()) if is_address(text) else read_path(value)


def read_folder(value: object) -> Path:
    """A folder of this machine."""
    if is_address(str(value)):
        raise ValueError("is no directory of this machine")
    return read_path(value)


def read_flag(value: object) -> bool:
    """True or false, in the words people use for them."""
    word = str(value).strip().lower()
    if word not in {"true", "1", "yes", "on", "false", "0", "no", "off"}:
        raise ValueError("is neither true nor false")
    return word in {"true", "1", "yes", "on"}


def read_broker(value: object) -> str:
    """`embedded`, or `kafka://` and hosts with ports; a repeated `kafka://` is bearable."""
    url = read_text(value)
    hosts = [part.removeprefix("kafka://") for part in url.split(";")]
    address = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})")
    matches = [address.fullmatch(host) for host in hosts]
    in_range = all(match is not None and 0 < int(match[2]) < 65536 for match in matches)
    if url != EMBEDDED and not (url.startswith("kafka://") and in_range):
        raise ValueError("is neither embedded nor kafka://host:port[;host:port]")
    return url if url == EMBEDDED else "kafka://" + ";".join(hosts)


def read_prefix(value: object) -> str:
    """The first part of a Kafka topic's name."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", read_text(value)):
        raise ValueError("is no topic prefix: use letters, digits, '.', '_' and '-'")
    return read_text(value)


def read_region(value: object) -> str:
    """Two letters for a country; whether there is one of that name, the library of numbers knows."""
    # Read by every command, needed by hardly any: the library takes longer to import than all settings to read.
    from phonenumbers import country_code_for_region

    region = read_text(value).upper()
    if not re.fullmatch("[A-Z]{2}", region) or not country_code_for_region(region):
        raise ValueError("is no ISO 3166 country code, such as US")
    return region


def read_cron(value: object) -> str | None:
    """Five cron fields, or None for the empty text."""
    if value == "":
        return None
    if len(read_text(value).split()) != 5 or not croniter.is_valid(read_text(value)):
        raise ValueError("is no cron line of five fields, such as '15 6 * * *'")
    return read_text(value)


def read_origins(value: object) -> tuple[str, ...]:
    """Origins of web pages (`https://host`, with a port where it is not the usual one), or `*`."""
    parts = value.split(",") if isinstance(value, str) else value
    listed = parts if isinstance(parts, list | tuple) else ()
    origins = tuple(part.strip().rstrip("/") for part in listed if isinstance(part, str) and part.strip())
    if not origins or not all(re.fullmatch(r"\*|https?://[^/\s,]+", origin) for origin in origins):
        raise ValueError("is no list of origins such as https://dialer.example.com, and not *")
    return origins


def read_secrets(value: object) -> tuple[str, ...]:
    """Secrets, from one comma-separated text or from a list."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError("is neither a text nor a list of texts")
    return tuple(part.strip() for part in parts if part.strip())
