"""``python -m LesionDecompLib.processes.worker FOLDER``: do the job that lies in a folder; leave the result there."""

from __future__ import annotations

import shutil
import sys
import traceback
import warnings
from pathlib import Path

from ..errors import LesionDecompError
from .events import Event, Failed, Finished, Step, event_line
from .job_files import read_job, write_result
from .time_left import TimeLeft
from .tree import end_with_parent

STAGE = "Segmentation"


def main(arguments: list[str]) -> int:
    """Run one job.

    :return: exit status: 0 done, 1 failed, 2 wrong usage."""
    if len(arguments) != 1:
        print("usage: python -m LesionDecompLib.processes.worker FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    end_with_parent(lambda: shutil.rmtree(folder, ignore_errors=True))
    warnings.simplefilter("ignore")  # libraries' remarks to programmers; stderr is for what a user may have to read
    try:
        _run(folder)
    except LesionDecompError as error:
        _say(Failed(error.stage, error.found, error.expected, error.advice))
    except MemoryError:
        advice = "Use a smaller batch size, crop the volume, or close other programs."
        _say(Failed(STAGE, "too little memory", "memory for the volume and one batch", advice))
    except Exception as error:
        traceback.print_exc()
        text = " ".join(str(error).split())[:300]
        _say(Failed(STAGE, f"an internal error ({type(error).__name__}: {text})", "a finished run", "Report it."))
    else:
        _say(Finished())
        return 0
    return 1


def _run(folder: Path) -> None:
    _say(Step("start", 0, 1))
    # torch takes seconds to import: the first line is out before.
    from ..pipeline import Segmenter  # not before: it takes seconds
    from ..report.manifest import build_manifest, manifest_text  # nor this

    volume, mask, parameters = read_job(folder)
    segmenter = Segmenter(
        parameters.lesion_model, parameters.lung_model, device=parameters.device, batch_size=parameters.batch_size
    )
    left = TimeLeft()
    result = segmenter.run(
        volume,
        lung_mask=mask,
        threshold=parameters.threshold,
        min_volume_ml=parameters.min_volume_ml,
        progress=lambda stage, done, total: _say(Step(stage, done, total, left.update(stage, done, total))),
    )
    _say(Step("writing", 0, 1))
    asked = {"device": parameters.device, "batch_size": parameters.batch_size}
    write_result(folder, result, manifest_text(build_manifest(volume, result, parameters=asked)))


def _say(event: Event) -> None:
    # The line end in front keeps a library's unfinished line out of ours.
    sys.stdout.write(f"\n{event_line(event)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
