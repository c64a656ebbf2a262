"""Something odd about a CT or its lungs: the sentence that people read, with a code and the number behind it."""

from __future__ import annotations

from typing import Any


class Oddity(str):
    """A warning. It is its sentence, so that it goes wherever sentences go; scripts read the rest.

    :param text: what people read.
    :param code: stays the same whatever becomes of the sentence.
    :param value: what was measured.
    :param limit: which it should not have crossed.

    >>> Oddity("The lungs measure 300 mL.", "lung_volume", 300.0, 1000.0).record()["code"]
    'lung_volume'
    """

    __slots__ = ("code", "limit", "value")

    code: str
    value: float
    limit: float

    def __new__(cls, text: str, code: str, value: float, limit: float) -> Oddity:
        """The sentence, with what is behind it."""
        self = super().__new__(cls, text)
        self.code, self.value, self.limit = code, float(value), float(limit)
        return self

    def __getnewargs__(self) -> tuple[str, str, float, float]:  # type: ignore[override]
        """For pickling: results come from other processes."""
        return str(self), self.code, self.value, self.limit

    def record(self) -> dict[str, Any]:
        """For ``report.json``: code, value, limit and text."""
        return {"code": self.code, "value": round(self.value, 4), "limit": self.limit, "text": str(self)}
