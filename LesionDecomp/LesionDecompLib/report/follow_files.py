"""The files of a follow-up, written as a set: change labelmaps, table, record, trend chart, page."""

from __future__ import annotations

import re
from pathlib import Path

from ..io.atomic import check_writable, existing_error, staged_folder, write_csv
from ..io.nrrd import write_image
from ..measurement.change.table import change_csv
from .follow import CHANGE, FollowUp
from .follow_page import follow_page
from .manifest import file_sha256, manifest_text

TABLE, RECORD, TREND, PAGE = "change.csv", "change.json", "trend.svg", "report.html"
NUMBERED = re.compile(r"change-\d+\.nrrd")


def check_follow_folder(folder: Path, overwrite: bool) -> None:
    """Refuse before any work what :func:`write_follow` would refuse after it.

    :raises LesionDecompError: earlier results without ``overwrite``, a folder that cannot be written to.
    """
    taken = [name for name in replaced_files(folder) if (folder / name).exists()]
    if taken and not overwrite:
        raise existing_error("Opening the output folder", folder, taken)
    check_writable(folder)


def replaced_files(folder: Path) -> tuple[str, ...]:
    """All names of a follow-up's files that may lie in the folder, labelmaps of one with more scans among them."""
    numbered = sorted(path.name for path in folder.glob("change-*.nrrd") if NUMBERED.fullmatch(path.name))
    return (CHANGE, *numbered, TABLE, RECORD, TREND, PAGE)


def write_follow(folder: Path, follow: FollowUp, overwrite: bool = False) -> list[Path]:
    """Write all files; they appear as a set, the record last.

    :return: the files written.
    :raises LesionDecompError: earlier results without ``overwrite``, full disk, no permission; the folder is then as it
        was.
    """
    record = follow.record()
    with staged_folder(folder, overwrite, last=RECORD, retired=replaced_files(folder)) as staging:
        for name, scan, comparison in zip(follow.change_files(), follow.scans[1:], follow.comparisons, strict=True):
            write_image(staging / name, comparison.labels, scan.ijk_to_ras)
        table = change_csv(
            (follow.names[number - 1], follow.names[number], comparison.rows, follow.all_warnings(number))
            for number, comparison in enumerate(follow.comparisons, start=1)
        )
        write_csv(staging / TABLE, table)
        texts = {TREND: follow.trend_svg() + "\n", PAGE: follow_page(follow, record)}
        for name, text in texts.items():
            (staging / name).write_text(text, encoding="utf-8", newline="\n")
        names = sorted(path.name for path in staging.iterdir())
        record["outputs"] = {name: file_sha256(staging / name) for name in names}
        (staging / RECORD).write_text(manifest_text(record), encoding="utf-8", newline="\n")
    return [folder / name for name in [*names, RECORD]]
