"""What a run with many inputs promises: it goes on where it was ended, and several processes do what one does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import lungs_in_boxes, process_environment, run_apart, run_here, small_ct, snapshot
from LesionDecompLib.cli.batch.finished import source_state
from LesionDecompLib.cli.batch.plan import Case
from LesionDecompLib.cli.case_sharing import CaseSharing, first_host
from LesionDecompLib.io.readers import read_volume, write_image


@pytest.fixture
def models(models, monkeypatch):
    """Small untrained models; the air in two boxes stands in for what a trained lung network finds."""
    monkeypatch.setattr("LesionDecompLib.segmentation.lungs.segment.segment_lungs", lungs_in_boxes)


@pytest.fixture
def inputs(tmp_path):
    """Three CTs and a broken file, named in a list."""
    ct, _, volume = small_ct(tmp_path)
    folder = tmp_path / "Ein Satz"
    folder.mkdir()
    for name, step in (("c", 0), ("a", 3), ("b", 7)):
        write_image(folder / f"{name}.nrrd", volume.array + np.int16(step), volume)
    (folder / "kaputt.nii.gz").write_bytes(b"\x1f\x8b damaged")
    ct.unlink()
    listed = tmp_path / "inputs.txt"
    listed.write_text("\n".join(str(path) for path in sorted(folder.iterdir(), reverse=True)) + "\n\n", "utf-8")
    return folder, listed, tmp_path / "out"


def _results(out) -> dict[str, str]:
    """Everything that was written less the reports, which report times."""
    return {name: value for name, value in snapshot(out).items() if not name.endswith("report.json")}


@pytest.mark.slow
def test_a_second_run_skips_what_is_done_and_reports_the_same(inputs, models, capsys):
    _, listed, out = inputs
    first = run_here(capsys, "segment", "--list", listed, "-o", out, "--quiet")
    assert first.status == 1 and "3 of 4 cases done" in first.err
    before, times = snapshot(out), {path: path.stat().st_mtime_ns for path in out.rglob("*.nrrd")}
    again = run_here(capsys, "segment", "--list", listed, "-o", out, "--quiet")
    assert again.status == 1 and "3 of 4 cases are done already" in again.err
    assert snapshot(out) == before
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.nrrd")} == times


@pytest.mark.slow
def test_an_ended_run_goes_on_and_its_summary_is_that_of_a_run_that_was_not(inputs, models, capsys):
    _, listed, out = inputs
    run_here(capsys, "segment", "--list", listed, "-o", out, "--quiet")
    whole = _results(out)
    # As a run leaves it that was killed in the middle of its second case.
    shutil.rmtree(out / "a")
    shutil.rmtree(out / "b")
    (out / "summary.csv").unlink()
    assert run_here(capsys, "segment", "--list", listed, "-o", out, "--quiet").status == 1
    assert _results(out) == whole


@pytest.mark.slow
def test_an_input_that_was_only_copied_anew_costs_no_computation_and_a_changed_one_is_not_passed_over(
    inputs, models, capsys, monkeypatch
):
    folder, listed, out = inputs
    run_here(capsys, "segment", "--list", listed, "-o", out, "--quiet")
    before = _results(out)
    os.utime(folder / "a.nrrd", (1, 1))
    volume, _ = read_volume(folder / "b.nrrd")
    write_image(folder / "b.nrrd", volume.array + np.int16(1), volume)
    done = run_here(capsys, "segment", "--list", listed, "-o", out, "--quiet")
    assert done.status == 1 and "1 of 4 cases are done already" in done.err
    assert "/4 b] Opening the output folder: found an earlier report.json" in done.err
    after = _results(out)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"summary.csv"}  # which reports that b failed now
    replaced = run_here(capsys, "segment", "--list", listed, "-o", out, "--quiet", "--overwrite")
    assert "3 of 4 cases done" in replaced.err


@pytest.mark.parametrize("other", [("--threshold", "0.7"), ("--min-volume-ml", "2"), ("--precision", "float32")])
def test_results_of_other_parameters_are_neither_taken_for_done_nor_replaced(inputs, models, capsys, other):
    folder, _, out = inputs
    arguments = ["segment", folder / "a.nrrd", folder / "b.nrrd", "-o", out, "--quiet"]
    assert run_here(capsys, *arguments).status == 0
    before = snapshot(out)
    refused = run_here(capsys, *arguments, *other)
    assert refused.status == 1 and "an earlier heatmap.nrrd" in refused.err
    assert snapshot(out) == before


@pytest.mark.slow
def test_a_result_that_lacks_a_file_asked_for_is_not_done(inputs, models, capsys):
    folder, _, out = inputs
    arguments = ["segment", folder / "a.nrrd", folder / "b.nrrd", "-o", out, "--quiet"]
    run_here(capsys, *arguments)
    assert run_here(capsys, *arguments, "--overview").status == 1
    (out / "a" / "lungs.nrrd").unlink()
    assert run_here(capsys, *arguments).status == 1


def test_a_list_that_cannot_be_read_and_no_input_at_all_are_reported(tmp_path, capsys):
    done = run_here(capsys, "segment", "--list", tmp_path / "none.txt", "-o", tmp_path / "out")
    assert done.status == 1 and "found 'none.txt', which cannot be read" in done.err
    assert run_here(capsys, "segment", "-o", tmp_path / "out").status == 2
    assert not (tmp_path / "out").exists()


def test_the_state_of_an_input_reports_a_change_without_reading_it(tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.dcm").write_bytes(b"x" * n)
    state = source_state(folder)
    assert (state["files"], state["bytes"]) == (3, 3)
    (folder / "2.dcm").write_bytes(b"abc")
    assert source_state(folder) != state


@pytest.mark.slow
def test_the_benchmark_reports_the_case_its_networks_and_why_something_is_left_out(inputs, models, tmp_path, capsys):
    figures = tmp_path / "figures.json"
    done = run_here(capsys, "bench", inputs[0] / "a.nrrd", "--device", "cpu", "--repeats", "1", "-o", figures)
    assert done.status == 0, done.err
    reported = json.loads(figures.read_text("utf-8"))
    assert reported["case"] == {"size_ijk": [64, 64, 12], "axial_slices": 12}
    assert 0 < reported["networks_alone"]["wall_s"] < reported["end_to_end"]["wall_s"]
    # Stages are reported to the millisecond.
    assert sum(reported["stages_s"].values()) == pytest.approx(reported["end_to_end"]["wall_s"], rel=0.3, abs=0.1)
    assert set(reported["threshold_update"]) == {"64×64×12", "64×64×48"}
    assert "End to end over the networks alone" in done.out
    assert ("left_out" in reported["r231"]) == ("R231 left out" in done.out)


class TestProcesses:
    @pytest.mark.slow
    def test_two_processes_write_what_one_writes_and_a_killed_run_is_gone_on_with(self, inputs, tmp_path):
        _, listed, out = inputs
        (tmp_path / "home").mkdir()
        arguments = ["segment", "--list", listed, "--quiet"]
        alone = run_apart(tmp_path, tmp_path / "home", *arguments, "-o", tmp_path / "alone", "--device", "cpu")
        assert alone.status == 1 and "3 of 4 cases done" in alone.err, alone.err

        # Killed without warning once the first case is there.
        command = [sys.executable, "-m", "LesionDecompLib", *map(str, arguments), "-o", str(out), "--device", "cpu,cpu"]
        environment = process_environment(tmp_path / "home")
        process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 200
        while not list(out.glob("*/report.json")) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()

        together = run_apart(tmp_path, tmp_path / "home", *arguments, "-o", out, "--device", "cpu,cpu")
        assert together.status == 1 and "3 of 4 cases done" in together.err, together.err
        hidden = [path for path in out.iterdir() if path.name.startswith(".")]
        for path in hidden:  # all that a killed process may leave
            assert path.name.endswith(".partial")
            shutil.rmtree(path)
        assert _results(out) == _results(tmp_path / "alone")
        reports = [json.loads((out / name / "report.json").read_text("utf-8")) for name in "abc"]
        assert {report["parameters"]["device"] for report in reports} == {"cpu"}

    @pytest.mark.slow
    @pytest.mark.skipif(not Path("/proc/self/environ").is_file(), reason="distinguishes ranks by Linux's /proc")
    def test_a_rank_killed_under_torchrun_leaves_its_cases_to_the_next_run(self, tmp_path):
        _, mask, volume = small_ct(tmp_path)
        mask.unlink()
        (tmp_path / "chest.nrrd").unlink()
        studies, out = tmp_path / "studies", tmp_path / "out"
        studies.mkdir()
        (tmp_path / "home").mkdir()
        for number in range(6):
            write_image(studies / f"ct{number}.nrrd", volume.array + np.int16(number), volume)
        arguments = ["segment", studies, "--quiet", "--device", "cpu"]
        alone = run_apart(tmp_path, tmp_path / "home", *arguments, "-o", tmp_path / "alone")
        assert alone.status == 0, alone.err

        ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command = [*ranks, "-m", "LesionDecompLib", *map(str, arguments), "-o", str(out)]
        options = {"env": process_environment(tmp_path / "home"), "stderr": subprocess.PIPE, "encoding": "utf-8"}
        process = subprocess.Popen(command, **options)
        end = time.monotonic() + 200
        while not list(out.glob("*/report.json")) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(_rank(process.pid, 1), signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode != 0
        assert 0 < len(list(out.glob("*/report.json"))) < 6

        done = subprocess.run(command, timeout=200, check=False, **options)
        assert done.returncode == 0 and "6 of 6 cases done" in done.stderr, done.stderr
        assert "cases are done already" in done.stderr
        for path in out.glob(".*.partial"):  # all that a killed process may leave
            shutil.rmtree(path)
        assert _results(out) == _results(tmp_path / "alone")


def _rank(torchrun: int, rank: int) -> int:
    """Process number of a rank that ``torchrun`` has started."""
    for child in Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text("ascii").split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"no rank {rank}")


def _pair(monkeypatch):
    from torch import distributed

    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("LESIONDECOMP_STORE", f"127.0.0.1:{store.port}")
    return store, [CaseSharing(rank, 2, rank, 2) for rank in (0, 1)]


def _cases(tmp_path) -> list[Case]:
    return [Case(str(n), tmp_path / str(n), tmp_path / "out" / str(n)) for n in range(5)]


def test_each_case_is_taken_once_by_whoever_is_free(tmp_path, monkeypatch):
    _store, (first, second) = _pair(monkeypatch)
    cases, others = _cases(tmp_path), _cases(tmp_path)
    mine, theirs = first.numbers(5), second.numbers(5)
    assert [next(mine), next(theirs), next(theirs), next(theirs), next(mine)] == [0, 1, 2, 3, 4]
    assert list(mine) == list(theirs) == []
    for number in (1, 2, 3):
        others[number].status, others[number].measurements = "done", {"lesion_volume_ml": float(number)}
    waiting = threading.Thread(target=lambda: (time.sleep(0.3), second.hand_in(others)))
    waiting.start()
    assert first.collect(cases)
    waiting.join()
    assert [case.status for case in cases] == ["", "done", "done", "done", ""]
    assert cases[2].measurements == {"lesion_volume_ml": 2.0}


def test_a_process_that_died_is_not_waited_for_forever_and_makes_the_run_fail(tmp_path, monkeypatch):
    _store, (first, second) = _pair(monkeypatch)
    assert next(second.numbers(5)) == 0  # taken, and never heard of again
    monkeypatch.setattr("LesionDecompLib.cli.case_sharing.SILENT_S", 0.5)
    cases = _cases(tmp_path)
    assert list(first.numbers(5)) == [1, 2, 3, 4]
    assert not first.collect(cases)
    assert cases[0].status == ""  # "not run" in the summary, done by the next run


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("n1", "n1"), ("a,b", "a"), ("gpu[03-07,12],cpu1", "gpu03"), ("x[9].lan", "x9.lan")],
)
def test_the_first_host_of_a_slurm_list(nodes, host):
    assert first_host(nodes) == host


def test_srun_is_understood(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    reported = {
        "SLURM_STEP_NUM_TASKS": "1",
        "SLURM_PROCID": "0",
        "SLURM_NTASKS": "8",
    }
    for key, value in reported.items():
        monkeypatch.setenv(key, value)
    # Inside a batch script, outside srun, SLURM names the tasks of the job: this process is alone all the same.
    assert CaseSharing.of_environment().size == 1
    from LesionDecompLib.cli import case_sharing

    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    monkeypatch.setenv("SLURM_PROCID", "5")
    monkeypatch.setenv("SLURM_LOCALID", "1")
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "4(x2)")
    monkeypatch.setenv("SLURM_STEP_NODELIST", "gpu[03-04]")
    monkeypatch.setenv("SLURM_JOB_ID", "41007")
    words = case_sharing.slurm_in_torch_words()
    assert words == {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "gpu03",
        "MASTER_PORT": "21007",
    }
