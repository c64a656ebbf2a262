"""A segmentation in a process of its own gives the same result, ends when asked to, and leaves nothing behind."""

from __future__ import annotations

import gc
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from LesionDecompLib.cli.job import TimeLeft
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import InputError, LesionDecompError
from LesionDecompLib.processes.child import ENDED
from LesionDecompLib.processes.events import Failed, Step, event_line, parse_event
from LesionDecompLib.processes.segmentation import JobParameters, SegmentationJob
from LesionDecompLib.processes.tree import library_environment

pytestmark = pytest.mark.slow


@pytest.fixture
def parameters(untrained_segmenter) -> JobParameters:
    return JobParameters(
        lesion_model=str(untrained_segmenter.lesion_bundle.path),
        lung_model=str(untrained_segmenter.lung_bundle.path),
        device="cpu",
        threshold=0.4,
    )


def finish(job: SegmentationJob) -> list[Step]:
    """Wait for the worker's end; the different steps it reported."""
    steps = []
    end = time.monotonic() + 300
    while job.poll() not in ENDED and time.monotonic() < end:
        if not steps or steps[-1] != job.step:
            steps.append(job.step)
        time.sleep(0.005)
    return [*steps, job.step]


def impostor(folder: Path, program: str) -> list[str]:
    """A worker that runs ``program`` instead of the real one."""
    file = folder / "impostor.py"
    file.write_text(program, "utf-8")
    return [sys.executable, str(file)]


def run_impostor(volume: Volume, folder: Path, program: str) -> tuple[SegmentationJob, LesionDecompError]:
    job = SegmentationJob(volume, None, JobParameters(), python=impostor(folder, program), temporary_folder=folder)
    finish(job)
    with pytest.raises(LesionDecompError) as caught:
        job.result()
    job.close()
    return job, caught.value


def test_worker_gives_the_result_of_the_same_run_in_this_process(chest_case, untrained_segmenter, parameters, tmp_path):
    volume, lungs = chest_case
    expected = untrained_segmenter.run(volume, lung_mask=lungs, threshold=0.4)
    job = SegmentationJob(volume, lungs, parameters, temporary_folder=tmp_path)
    if os.name == "posix":
        assert stat.S_IMODE(job.job_folder.stat().st_mode) == 0o700
    steps = finish(job)
    result = job.result()
    report = json.loads(result.report)
    counted = result.lung_tally
    heat, found, lesions = (np.array(result.boxed(name)) for name in ("heat", "lungs", "lesions"))
    job.close()
    assert result.shape == volume.shape
    # Another number of threads adds in another order.
    np.testing.assert_allclose(heat, expected.heat[result.box], atol=1e-5)
    np.testing.assert_array_equal(found, expected.lungs[result.box])
    assert np.count_nonzero(found) == np.count_nonzero(expected.lungs)
    assert (heat.dtype, found.dtype, lesions.dtype) == (np.float32, np.uint8, np.uint8)
    assert [row.region for row in result.statistics] == [row.region for row in expected.statistics]
    assert result.statistics[0].values == pytest.approx(expected.statistics[0].values, rel=1e-5, nan_ok=True)
    assert counted.box == expected.lung_tally.box and counted.hu.low == expected.lung_tally.hu.low
    np.testing.assert_array_equal(counted.voxels, expected.lung_tally.voxels)
    np.testing.assert_array_equal(counted.hu.counts, expected.lung_tally.hu.counts)
    np.testing.assert_allclose(counted.heat, expected.lung_tally.heat, rtol=1e-5)
    assert (result.threshold, result.min_volume_ml) == (0.4, 0.1)
    assert report["run"]["precision"] == expected.precision
    assert report["models"]["lesions"]["sha256"] == untrained_segmenter.lesion_bundle.sha256
    assert report["models"]["lungs"] is None
    assert report["parameters"]["device"] == "cpu"
    assert steps[0].stage == "start"
    assert steps[-1].stage == "writing"
    assert not list(tmp_path.iterdir())


def test_worker_repeats_what_the_run_refused(untrained_segmenter, parameters, tmp_path):
    flat = Volume.from_array(np.full((9, 9, 9), 40, np.int16), np.eye(4))
    with pytest.raises(LesionDecompError) as expected:
        untrained_segmenter.run(flat)
    job = SegmentationJob(flat, None, parameters, temporary_folder=tmp_path)
    finish(job)
    with pytest.raises(LesionDecompError) as caught:
        job.result()
    job.close()
    assert str(caught.value) == str(expected.value)
    assert type(caught.value) is type(expected.value) is InputError
    assert not list(tmp_path.iterdir())


def test_closing_a_job_ends_the_worker_and_removes_its_folder(chest_case, parameters, tmp_path):
    volume, lungs = chest_case
    job = SegmentationJob(volume, lungs, parameters, temporary_folder=tmp_path)
    assert job.poll() not in ENDED
    job.close()
    job.close()
    assert job.process.poll() is not None
    assert not list(tmp_path.iterdir())


def test_a_forgotten_job_ends_with_the_object(chest_case, parameters, tmp_path):
    job = SegmentationJob(chest_case[0], None, parameters, temporary_folder=tmp_path)
    process = job.process
    del job
    gc.collect()
    assert process.poll() is not None
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_killed_worker_is_reported_with_its_last_lines(chest_case, tmp_path):
    program = (
        "import os, signal, sys\n"
        "print('loading', file=sys.stderr)\n"
        "print('terminate called after throwing std::bad_alloc', file=sys.stderr, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    job, error = run_impostor(chest_case[0], tmp_path, program)
    assert job.process.poll() == -signal.SIGKILL
    assert "64×64×61 voxels" in error.found
    assert "SIGKILL" in error.found
    assert "smaller batch size" in error.advice
    assert "loading / terminate called after throwing std::bad_alloc" in error.advice
    assert [entry.name for entry in tmp_path.iterdir()] == ["impostor.py"]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("stopped", [False, True])
def test_a_worker_that_hangs_is_ended_and_reported(chest_case, tmp_path, stopped):
    """Also one that no longer answers to anything but SIGKILL."""
    line = event_line(Step("heat", 3, 7))
    program = f"import os, signal, time\nprint({line!r}, flush=True)\n"
    program += (
        "os.kill(os.getpid(), signal.SIGSTOP)\n" if stopped else "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    )
    command = impostor(tmp_path, program + "while True: time.sleep(1)\n")
    job = SegmentationJob(
        chest_case[0], None, JobParameters(), python=command, temporary_folder=tmp_path, silence_s=3.0
    )
    finish(job)
    with pytest.raises(LesionDecompError, match=r"without a sign of life for 3 s \(stage '(heat|start)'\)"):
        job.result()
    assert job.process.poll() == -signal.SIGKILL  # waited for: no zombie
    job.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["impostor.py"]


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on memory that the system keeps")
@pytest.mark.parametrize("mib", [100, 700])
def test_a_worker_without_enough_memory_is_reported_and_leaves_nothing(chest_case, parameters, tmp_path, mib):
    """With 100 MiB Python itself, numpy or scipy fails, with 700 torch does: the user reads one sentence each time.

    Not from 160 to 180 MiB: there the OpenBLAS of scipy waits for memory for ever while it is loaded, so that a run
    has to be canceled.
    """
    limited = ["sh", "-c", f'ulimit -v {mib * 1024}; exec "$0" "$@"', sys.executable]
    job = SegmentationJob(*chest_case, parameters, python=limited, temporary_folder=tmp_path)
    finish(job)
    with pytest.raises(LesionDecompError, match=r"^(Segmentation|Loading (PyTorch|libraries)): found ") as caught:
        job.result()
    assert "\n" not in str(caught.value) and "Install PyTorch" not in str(caught.value)
    job.close()
    assert job.process.poll() is not None and not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("both", [False, True])
def test_images_do_not_outlive_a_killed_parent(chest_case, parameters, tmp_path, both):
    """The worker ends and removes them; where it was killed too, the next job does."""
    volume, lungs = chest_case
    np.save(tmp_path / "hu.npy", volume.array)
    (tmp_path / "jobs").mkdir()
    code = (
        "import numpy as np, sys, time\n"
        "from LesionDecompLib.ct.volume import Volume\n"
        "from LesionDecompLib.processes.segmentation import JobParameters, SegmentationJob\n"
        "volume = Volume.from_array(np.load('hu.npy'), np.eye(4))\n"
        "job = SegmentationJob(volume, None, JobParameters(), temporary_folder='jobs')\n"
        "while job.process.new_lines() == []: time.sleep(0.01)\n"
        "print(job.process.pid, flush=True); time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=library_environment(),
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    worker = int(parent.stdout.readline())
    (folder,) = (tmp_path / "jobs").iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and (folder / "hu.npy").is_file()
    if both:
        os.kill(worker, signal.SIGSTOP)  # so that it cannot clean up in the moment between
    parent.kill()
    parent.communicate()
    if both:
        os.kill(worker, signal.SIGKILL)
        assert folder.exists()
        SegmentationJob(volume, lungs, parameters, temporary_folder=tmp_path / "jobs").close()
    end = time.monotonic() + 60
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert not list((tmp_path / "jobs").iterdir())


def test_garbage_on_standard_output_is_passed_over(chest_case, tmp_path):
    good = event_line(Step("heat", 3, 7, 2.5))
    program = (
        "import sys\n"
        "out = sys.stdout.buffer\n"
        r"out.write(b'\xff\x00\n{\n[]\n{}\n{\"lesiondecomp\": \"step\"}\nnull\n' + b'[' * 100000 + b'\n')" + "\n"
        r"out.write(b'no line end' + b'\n' + " + f"{good.encode()!r} + b'\\n')\n"
        r"out.write(b'{\"lesiondecomp\": \"failed\", \"more\": 1}' + b'\n')" + "\n"
        "out.write(b'x' * 3_000_000)\nsys.exit(3)\n"
    )
    job, error = run_impostor(chest_case[0], tmp_path, program)
    assert job.step == Step("heat", 3, 7, 2.5)
    assert "ended early" in error.found
    assert "exit status 3" in error.found


def test_a_worker_that_claims_a_result_it_did_not_write_is_not_believed(chest_case, tmp_path):
    _, error = run_impostor(chest_case[0], tmp_path, "")
    assert "missing or damaged result.json" in str(error)


@pytest.mark.parametrize("event", [Step("lungs", 0, 9), Step("heat", 8, 9, 1.5), Failed("a", "ü", "c")])
def test_events_survive_their_line(event):
    line = event_line(event)
    assert line.isascii()
    assert parse_event(line) == event


@pytest.mark.parametrize(
    "line",
    [
        '{"lesiondecomp": "step", "stage": "heat", "done": 9, "total": 8}',
        '{"lesiondecomp": "step", "stage": "heat", "done": true, "total": 8}',
        '{"lesiondecomp": "step", "stage": "heat", "done": 1, "total": 8, "seconds_left": NaN}',
        '{"lesiondecomp": "step", "stage": "heat", "done": 1, "total": 8, "seconds_left": 1e999}',
        '{"lesiondecomp": "step", "stage": "<b>", "done": 1, "total": 8}',
        '{"lesiondecomp": "failed", "stage": 1, "found": "", "expected": ""}',
        '{"lesiondecomp": ["step"]}',
        '{"lesiondecomp": "else"}',
        "{" * 70000,
    ],
)
def test_lines_that_only_look_like_events_are_none(line):
    assert parse_event(line) is None


def test_time_left_follows_the_slices_and_shrinks_to_the_end():
    now = [0.0]
    left = TimeLeft(lambda: now[0])
    assert left.update("lungs", 0, 100) is None
    reported = []
    for stage in ("lungs", "heat"):
        for done in range(0, 101, 10):
            reported.append(left.update(stage, done, 100))
            now[0] += 1.0
    known = [seconds for seconds in reported if seconds is not None]
    assert known[0] == pytest.approx(20, rel=0.4)
    assert known[-1] < 3
    assert left.update("statistics", 0, 1) is None
