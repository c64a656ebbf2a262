"""The two ways in which work ends early: an error a person can act upon, and a cancel."""

from __future__ import annotations

MAX_FOUND = 500  # characters of what was found that a message shows


class LesionDecompError(Exception):
    """What went wrong, in one sentence a user can act upon.

    :param stage: the step that refused, e.g. ``"Reading the CT"``.
    :param found: what was there, e.g. ``"a 2-D image of 512×512 pixels"``.
    :param expected: what would have worked, e.g. ``"a 3-D chest CT"``.
    :param advice: what to do about it, a sentence of its own; may be empty.

    >>> print(LesionDecompError("Lung mask", "an empty mask", "lung marked by values other than 0"))
    Lung mask: found an empty mask; expected lung marked by values other than 0.
    """

    def __init__(self, stage: str, found: str, expected: str, advice: str = "") -> None:
        self.stage, self.found, self.expected, self.advice = stage, found, expected, advice
        short = found if len(found) <= MAX_FOUND else f"{found[:MAX_FOUND]}…"
        text = f"{stage}: found {short}; expected {expected}." + (f" {advice}" if advice else "")
        super().__init__(_one_line(text))

    def __reduce__(self) -> tuple[type[LesionDecompError], tuple[str, str, str, str]]:
        return type(self), (self.stage, self.found, self.expected, self.advice)


def _one_line(text: str) -> str:
    # What was found may come from a file: no line breaks or terminal codes of others get into a message.
    return "".join(character if character.isprintable() else " " for character in text)


class Cancelled(Exception):  # noqa: N818  (a request that was granted, not an error)
    """The cancel hook asked for the end of the work; nothing has been written."""

    def __init__(self, stage: str = "The run") -> None:
        super().__init__(f"{stage} was cancelled.")
