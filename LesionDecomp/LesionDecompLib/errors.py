"""The two ways in which work ends early: an error a person can act upon, and a cancel.

Errors are distinguished by what a person has to change: what went in, the model, where results go, or a setting.
"""

from __future__ import annotations

MAX_FOUND = 500  # characters of what was found that a message shows


class LesionDecompError(Exception):
    """What went wrong, in one sentence a user can act upon.

    :param stage: the step that refused, e.g. ``"Reading the CT"``.
    :param found: what was there, e.g. ``"a 2-D image of 512×512 pixels"``.
    :param expected: what would have worked, e.g. ``"a 3-D chest CT"``.
    :param advice: what to do about it, a sentence of its own; may be empty.
    :param remedy: name of the option that would help, for programs that offer it under a name of their own (as the
        command line does with ``--overwrite``); may be empty.
    :param code: stays the same whatever becomes of the sentence, for scripts; may be empty.

    >>> print(LesionDecompError("Lung mask", "an empty mask", "lung marked by values other than 0"))
    Lung mask: found an empty mask; expected lung marked by values other than 0.
    """

    def __init__(
        self, stage: str, found: str, expected: str, advice: str = "", remedy: str = "", code: str = ""
    ) -> None:
        self.stage, self.found, self.expected, self.advice, self.remedy = stage, found, expected, advice, remedy
        self.code = code
        short = found if len(found) <= MAX_FOUND else f"{found[:MAX_FOUND]}…"
        text = f"{stage}: found {short}; expected {expected}." + (f" {advice}" if advice else "")
        super().__init__(_one_line(text))

    def __reduce__(self) -> tuple[type[LesionDecompError], tuple[str, str, str, str, str, str]]:
        return type(self), (self.stage, self.found, self.expected, self.advice, self.remedy, self.code)


class InputError(LesionDecompError):
    """A CT, lung mask, label list or training set that cannot be used."""


class ModelError(LesionDecompError):
    """A model bundle or its weights that cannot be used."""


class OutputError(LesionDecompError):
    """Results that cannot be written, or would replace earlier ones."""


class ConfigError(LesionDecompError):
    """A setting, parameter or device that cannot be, or a package that it needs and that is missing."""


def _one_line(text: str) -> str:
    # What was found may come from a file: no line breaks or terminal codes of others get into a message.
    return "".join(character if character.isprintable() else " " for character in text)


class Cancelled(Exception):  # noqa: N818  (a request that was granted, not an error)
    """The cancel hook asked for the end of the work; nothing has been written."""

    def __init__(self, stage: str = "The run") -> None:
        super().__init__(f"{stage} was cancelled.")
