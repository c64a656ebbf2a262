"""Arguments that make no sense are refused before any work; labels read as they are written down."""

from __future__ import annotations

import argparse

import pytest
from LesionDecompLib.cli.argument_types import labels, labels_text


@pytest.mark.parametrize(
    ("text", "expected", "shortest"),
    [
        ("10-14", (10, 11, 12, 13, 14), "10-14"),
        ("3", (3,), "3"),
        (" 12, 10-11 ,14", (10, 11, 12, 14), "10-12,14"),
        ("1,1,1-2", (1, 2), "1-2"),
    ],
)
def test_labels(text, expected, shortest):
    assert labels(text) == expected
    assert labels_text(expected) == shortest and labels(shortest) == expected


@pytest.mark.parametrize("text", ["", "0", "a", "5-3", "1-", "-1", "1,,2", "65536", "1.5", "٣"])
def test_labels_that_make_no_sense(text):
    with pytest.raises(argparse.ArgumentTypeError):
        labels(text)


def test_no_labels_have_no_text():
    assert labels_text(None) is None
