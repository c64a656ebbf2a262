"""Typed settings: read from TOML and ``key=value`` texts, checked by the ranges that their types name.

A configuration is a frozen dataclass whose fields are numbers, texts, tuples and further such dataclasses. Unknown keys
are refused. A class may name the keys of earlier versions in ``FORMER``, which are then understood as well.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, TypeVar, get_args, get_origin, get_type_hints

from ..errors import ConfigError

STAGE = "Training configuration"
MAX_FILE_BYTES = 1 << 20
MAX_TEXT = 1000
NOT_SETTINGS = ("task", "version", "hours", "devices", "sources")  # what else a run's config.json holds


@dataclass(frozen=True)
class Range:
    """Lowest and highest value of a number, both allowed."""

    low: float
    high: float

    def refusal(self, value: Any) -> str:
        """What is expected of ``value``; empty where it lies in the range."""
        if self.low <= value <= self.high and math.isfinite(value):
            return ""
        return f"{self.low:g} to {self.high:g}" if isinstance(value, float) else f"{int(self.low)} to {int(self.high)}"


@dataclass(frozen=True)
class Sides:
    """Height and width, both in a range, or neither."""

    low: int
    high: int

    def refusal(self, value: Any) -> str:
        """What is expected of ``value``; empty where it is that."""
        fits = len(value) in (0, 2) and all(type(n) is int and self.low <= n <= self.high for n in value)
        return "" if fits else f"height and width, {self.low} to {self.high} pixels, or neither"


@dataclass(frozen=True)
class Pair:
    """Two numbers in a range, the second one ``rising`` above the first."""

    low: float
    high: float
    rising: bool
    expected: str

    def refusal(self, value: Any) -> str:
        """What is expected of ``value``; empty where it is that."""
        fits = len(value) == 2 and all(self.low <= n <= self.high for n in value)
        return "" if fits and (not self.rising or value[0] < value[1]) else self.expected


@dataclass(frozen=True)
class Rising:
    """At most so many numbers in a range, each above the one before."""

    low: float
    high: float
    most: int

    def refusal(self, value: Any) -> str:
        """What is expected of ``value``; empty where it is that."""
        fits = len(value) <= self.most and all(self.low <= n <= self.high for n in value)
        fits = fits and all(a < b for a, b in pairwise(value))
        return "" if fits else f"at most {self.most} rising numbers, {self.low:g} to {self.high:g}"


Count = Annotated[int, Range(1, 10_000_000)]  # of steps, at least one
Steps = Annotated[int, Range(0, 10_000_000)]
Seed = Annotated[int, Range(0, 2**63 - 1)]
Items = Annotated[int, Range(1, 4096)]  # of a batch, channels
Extra = Annotated[int, Range(0, 4096)]  # of a batch that may be empty
Levels = Annotated[int, Range(1, 10)]
Factor = Annotated[int, Range(1, 8)]
Pixels = Annotated[int, Range(32, 2048)]
Real = Annotated[float, Range(0.0, 1e6)]
Crop = Annotated[tuple[int, ...], Sides(16, 4096)]
Betas = Annotated[tuple[float, ...], Pair(0.0, math.nextafter(1.0, 0.0), False, "two numbers in [0, 1)")]
Distances = Annotated[tuple[float, ...], Rising(0.5, 100.0, 4)]  # mm, of slices above and below
Window = Annotated[tuple[float, float], Pair(-5000.0, 5000.0, True, "two HU, the lower one first")]


class Settings(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Config = TypeVar("Config", bound=Settings)


def change(config: Config, values: dict[str, Any]) -> Config:
    """A copy of a (nested) configuration with some values changed; types and ranges are checked.

    :param values: by name, tables for groups; keys of earlier versions are understood.
    :raises LesionDecompError: an unknown key, or a value of the wrong type or out of range.
    """
    kinds = get_type_hints(type(config), include_extras=True)
    known = [item.name for item in fields(config)]
    updates = {}
    for key, value in grouped(type(config), values).items():
        if key not in known:
            raise ConfigError(STAGE, f"the unknown key '{key[:60]}'", f"one of {', '.join(sorted(known))}")
        current = getattr(config, key)
        if is_dataclass(current) and not isinstance(current, type):
            if not isinstance(value, dict):
                raise ConfigError(STAGE, f"'{key}' = {_short(value)}", "a table of settings")
            updates[key] = change(current, value)
        else:
            updates[key] = _typed(key, value, kinds[key], current)
    return replace(config, **updates)


def grouped(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """``values`` with the keys of earlier versions (``kind.FORMER``: old key -> group and key) where they are now."""
    former: dict[str, tuple[str, str]] = getattr(kind, "FORMER", {})
    moved: dict[str, Any] = {}
    for key, value in values.items():
        if key in former and not isinstance(value, dict):
            group, name = former[key]
            table = moved.setdefault(group, {})
            if isinstance(table, dict):
                table[name] = value
        elif isinstance(value, dict) and isinstance(moved.get(key), dict):
            moved[key] = {**moved[key], **value}
        else:
            moved[key] = dict(value) if isinstance(value, dict) else value
    return moved


def read_values(file: str | Path | None = None, overrides: list[str] | None = None) -> dict[str, Any]:
    """The values of a TOML file, changed by ``key=value`` texts (``network.channels=8``).

    :raises LesionDecompError: an unreadable file or text.
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            if not Path(file).is_file():
                raise OSError("not a regular file")
            if Path(file).stat().st_size > MAX_FILE_BYTES:
                raise ValueError("more than 1 MiB")
            values = tomllib.loads(Path(file).read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(STAGE, f"a file that cannot be read ({error})", "a TOML file") from error
    for text in overrides or []:
        _set(values, text)
    return values


def as_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain values, for JSON."""
    return asdict(config)


def flat(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values one by one, each under its dotted key."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _set(values: dict[str, Any], text: str) -> None:
    """Put one ``key=value`` text into nested values."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(STAGE, f"'{text}'", "key=value")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        parsed = value
    *tables, last = key.strip().split(".")
    table = values
    for part in tables:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(STAGE, f"'{text}'", f"no value of its own for '{part}'")
    table[last] = parsed


def _typed(key: str, value: Any, kind: Any, current: Any) -> Any:
    plain, check = get_args(kind) if get_origin(kind) is Annotated else (kind, None)
    cast = _cast(value, plain, current)
    expected = f"a value like {current!r}" if cast is None else "" if check is None else check.refusal(cast)
    if not expected and isinstance(cast, str) and len(cast) > MAX_TEXT:
        expected = f"a text of at most {MAX_TEXT} characters"
    if expected:
        raise ConfigError(STAGE, f"'{key}' = {_short(value)}", expected)
    return cast


def _cast(value: Any, kind: Any, current: Any) -> Any:
    # None for a value of another type.
    if isinstance(current, tuple):
        kinds = (int,) if kind == tuple[int, ...] else (int, float)
        if isinstance(value, list | tuple) and all(type(item) in kinds for item in value):
            return tuple(value)
    elif kind is float and type(value) in (int, float):
        return float(value) if abs(value) < 2**1000 else math.inf
    elif type(value) is kind:
        return value
    return None


def _short(value: Any) -> str:
    try:
        return repr(value)[:60]
    except (ValueError, RecursionError):  # a number of very many digits
        return "something too long to show"
