"""Marked ranges of slices become labels, and volumes are dealt out so that training and checking have both labels."""

from __future__ import annotations

import pytest
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.training.data.labels import (
    SliceLabel,
    SliceRange,
    assign_splits,
    labels_of_ranges,
    read_slice_labels,
)


def labels(**kinds: str) -> dict[str, list[SliceLabel]]:
    """Cases with one slice for each letter: l lesion, n normal."""
    names = {"l": "lesion", "n": "normal"}
    return {case: [SliceLabel(n, names[k], "") for n, k in enumerate(text)] for case, text in kinds.items()}


def splits(dealt) -> dict[str, str]:
    return {case: items[0].split for case, items in dealt.items()}


def kinds_in(dealt, split: str) -> set[str]:
    return {item.label for items in dealt.values() for item in items if item.split == split}


def test_a_range_labels_every_slice_of_it_ends_included(tmp_path):
    made = labels_of_ranges([SliceRange("a", 3, 5, "normal"), SliceRange("a", 6, 6, "lesion", "val")])
    assert made == {
        "a": [*(SliceLabel(n, "normal", "") for n in (3, 4, 5)), SliceLabel(6, "lesion", "val")],
    }
    rows = ["case,slice,label,split", *(f"a,{n},normal," for n in (3, 4, 5)), "a,6,lesion,val"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    assert read_slice_labels(tmp_path / "labels.csv") == made


@pytest.mark.parametrize(
    ("ranges", "reported"),
    [
        ([], "no marked slices"),
        ([SliceRange("a", 5, 4, "normal")], "slices 5 to 4 of 'a'"),
        ([SliceRange("a", 0, 4, "healthy")], "as 'healthy'"),
        ([SliceRange("a", 0, 4, "normal"), SliceRange("a", 4, 9, "lesion")], "slice 4 of 'a' in two ranges"),
    ],
)
def test_impossible_ranges_are_refused(ranges, reported):
    with pytest.raises(LesionDecompError, match=reported):
        labels_of_ranges(ranges)


@pytest.mark.slow
@pytest.mark.parametrize(
    "cases",
    [
        {"a": "ln", "b": "nl"},
        {"a": "l", "b": "n", "c": "l", "d": "n"},
        {"a": "ln", "b": "l", "c": "n"},
        {f"c{n}": "ln" for n in range(20)},
    ],
)
def test_training_and_checking_both_get_both_labels(cases):
    dealt = assign_splits(labels(**cases))
    for split in ("train", "val"):
        assert kinds_in(dealt, split) == {"lesion", "normal"}
    checked = [case for case, split in splits(dealt).items() if split == "val"]
    assert len(checked) == {2: 1, 4: 2, 3: 1, 20: 2}[len(cases)]
    assert assign_splits(labels(**cases)) == dealt  # the same every time


@pytest.mark.slow
def test_a_split_that_was_chosen_stays():
    chosen = labels(a="ln", b="ln", c="ln")
    chosen["b"] = [SliceLabel(item.index, item.label, "val") for item in chosen["b"]]
    assert splits(assign_splits(chosen)) == {"a": "train", "b": "val", "c": "train"}


@pytest.mark.parametrize("seed", range(5))
def test_volumes_of_one_patient_stay_together(seed):
    cases = labels(a="ln", b="ln", c="ln", d="ln", e="ln")
    for case, patient in (("a", "p"), ("b", "p"), ("c", "q"), ("d", "q")):
        cases[case] = [SliceLabel(item.index, item.label, "", patient) for item in cases[case]]
    found = splits(assign_splits(cases, seed))
    assert found["a"] == found["b"] and found["c"] == found["d"]
    assert set(found.values()) == {"train", "val"}


@pytest.mark.parametrize("cases", [{"a": "ln"}, {"a": "l", "b": "n"}, {"a": "l", "b": "l"}, {"a": "ln", "b": "l"}])
def test_too_few_volumes_are_refused_with_advice(cases):
    with pytest.raises(LesionDecompError, match="Mark slices of more volumes"):
        assign_splits(labels(**cases))
