"""For the hospital's engineer: segment a folder of studies overnight, from a scheduler.

    python Examples/nightly_batch.py /studies /results

Each subfolder of the first folder holds one DICOM series, or a file of another format. A study that is done is skipped
the next night; one that cannot be read is reported and costs only itself; a killed run leaves no half-written study.
The exit status is 1 when a study failed, so that the scheduler can notify somebody.

It does in twenty lines of Python what ``lesiondecomp segment /studies/* -o /results`` does, for those who want to
hook it up to their own systems.
"""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.io.atomic import write_text
from LesionDecompLib.io.readers import case_name, read_volume
from LesionDecompLib.measurement.statistics import read_statistics_csv
from LesionDecompLib.pipeline import Segmenter
from LesionDecompLib.report.case import REPORT, STATISTICS, write_case


def main(studies: Path, results: Path) -> int:
    """Segment what is not done yet and collect the measurements of all studies; 1 when one failed."""
    segmenter = Segmenter()  # the networks are loaded once
    failed: dict[str, str] = {}
    rows: list[list[object]] = []
    for path in sorted(path for path in studies.iterdir() if not path.name.startswith(".")):
        name = case_name(path)
        folder = results / name
        try:
            if not (folder / REPORT).exists():  # the report is written last: with it, the study is complete
                volume, info = read_volume(path)
                write_case(folder, volume, segmenter.run(volume), info, overview=True, overwrite=True)
        except LesionDecompError as error:
            failed[name] = str(error)
            print(f"{name}: {error}", file=sys.stderr)
            continue
        values = read_statistics_csv(folder / STATISTICS)[0].values
        rows.append([name, f"{values['lesion_volume_ml']:.2f}", f"{values['involvement_percent']:.2f}", ""])
    rows += [[name, "", "", reason] for name, reason in failed.items()]
    lines = [["study", "lesion volume (mL)", "involvement (%)", "error"], *sorted(rows, key=lambda row: str(row[0]))]
    write_text(results / "night.csv", _csv(lines), "Writing the night's table")
    print(f"{len(rows) - len(failed)} studies done, {len(failed)} failed; see {results / 'night.csv'}")
    return 1 if failed else 0


def _csv(rows: list[list[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
