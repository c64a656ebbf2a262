"""Cases shared by Dask: what is refused, what one process writes is what several write, and what a death costs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from batch_results import hidden, summary, without_reports
from command_line import LIBRARY_HOME, process_environment, run_apart, run_here, small_ct
from dask_cluster import handmade_cluster
from LesionDecompLib import __version__
from LesionDecompLib.cli.batch import worker
from LesionDecompLib.cli.batch.board import Board
from LesionDecompLib.cli.batch.plan import Case
from LesionDecompLib.cli.batch.summary import RunningSummary
from LesionDecompLib.cli.batch.turns import Turns
from LesionDecompLib.cli.batch.window import AHEAD, TaskWindow
from LesionDecompLib.cli.batch.worker import Share, WorkerFacts, compute_on, device_of
from LesionDecompLib.cli.batch.workforce import unfitness
from LesionDecompLib.io.readers import write_image

MODELS = {"lungs": ("a", "b"), "lesions": ("c", "d")}


@pytest.fixture
def studies(tmp_path) -> Path:
    """Four small CTs and a broken file."""
    ct, mask, volume = small_ct(tmp_path)
    folder = tmp_path / "Zwölf Studien"
    folder.mkdir()
    for number in range(4):
        write_image(folder / f"ct{number}.nrrd", volume.array + np.int16(number), volume)
    (folder / "kaputt.nii.gz").write_bytes(b"\x1f\x8b damaged")
    ct.unlink()
    mask.unlink()
    (tmp_path / "home").mkdir()
    return folder


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {**process_environment(tmp_path / "home"), **more}


class TestRefusals:
    @pytest.mark.parametrize("variable", [("WORLD_SIZE", "2"), ("TORCHELASTIC_RUN_ID", "none")])
    def test_torchrun_is_for_training(self, tmp_path, capsys, monkeypatch, variable):
        monkeypatch.setenv(*variable)
        done = run_here(capsys, "segment", tmp_path / "a.nrrd", tmp_path / "b.nrrd", "-o", tmp_path / "out")
        assert done.status == 2 and "torchrun is for 'train'" in done.err and "--scheduler ADDRESS" in done.err
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("option", [("--processes", "2"), ("--device", "cpu,cpu"), ("--scheduler", "tcp://host:1")])
    def test_without_dask_the_extra_is_named(self, tmp_path, capsys, monkeypatch, option):
        monkeypatch.setattr("LesionDecompLib.cli.batch.cluster.has_dask", lambda: False)
        done = run_here(capsys, "segment", tmp_path / "a.nrrd", tmp_path / "b.nrrd", "-o", tmp_path / "out", *option)
        assert done.status == 2 and "pip install '.[cluster]'" in done.err

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--scheduler", "tcp://host:1", "--processes", "2"), "its own workers"),
            (("--scheduler", "tcp://host:1", "--device", "cpu,cpu"), "its own workers"),
            (("--device", "cpu,cpu,cpu", "--processes", "2"), "3 devices need as many"),
            (("--processes", "0"), "not a whole number from 1"),
        ],
    )
    def test_ways_that_exclude_each_other(self, tmp_path, capsys, options, words):
        done = run_here(capsys, "segment", tmp_path / "a.nrrd", tmp_path / "b.nrrd", "-o", tmp_path / "out", *options)
        assert done.status == 2 and words in done.err

    def test_one_input_needs_no_cluster(self, tmp_path, capsys):
        done = run_here(capsys, "segment", tmp_path / "a.nrrd", "-o", tmp_path / "out", "--processes", "2")
        assert done.status == 2 and "for several INPUTs" in done.err

    @pytest.mark.parametrize("scheduler", ["none.json", "tcp://127.0.0.1:1", "nonsense://x"])
    def test_a_scheduler_that_is_not_there(self, studies, capsys, scheduler, monkeypatch):
        monkeypatch.setattr("LesionDecompLib.cli.batch.cluster.CONNECT_S", 1.0)
        out = studies.parent / "out"
        done = run_here(capsys, "segment", studies, "-o", out, "--scheduler", scheduler, "--quiet")
        assert done.status == 1 and "Connecting to the cluster" in done.err and scheduler in done.err

    def test_one_process_does_not_load_dask(self, studies, tmp_path):
        for path in studies.glob("ct*"):  # broken files alone: no network is needed
            path.write_bytes(b"NRRD0004\ndamaged")
        code = (
            "import sys; from LesionDecompLib.__main__ import main; "
            f"status = main(['segment', {str(studies)!r}, '-o', {str(tmp_path / 'out')!r}]); "
            "print(status, sorted({'distributed', 'dask'} & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, encoding="utf-8", timeout=120
        )
        assert done.stdout.splitlines()[-1] == "1 []", done.stderr
        assert set(status for status, _ in summary(tmp_path / "out").values()) == {"failed"}


class TestWorkers:
    def facts(self, **other) -> WorkerFacts:
        usual = {
            "name": "0",
            "version": __version__,
            "models": MODELS,
            "missing": (),
            "error": "",
            "device": "CPU",
            "host": "n1",
            "mark": "m",
            "cores": (0, 1),
        }
        return WorkerFacts(**{**usual, **other})

    @pytest.mark.parametrize(
        ("other", "words"),
        [
            ({}, ""),
            ({"version": "0.0.1"}, "it has LesionDecomp 0.0.1"),
            ({"models": {**MODELS, "lesions": ("c", "x")}}, "its model of lesions is another one"),
            ({"models": {}}, "its model of lungs is another one"),
            ({"missing": ("/data/ct/a.nrrd",)}, "it does not see 'a.nrrd' in '/data/ct'"),
            ({"error": "Choosing the device: found the device 'cuda'; expected auto or one of cpu."}, "'cuda'"),
        ],
    )
    def test_one_that_differs_is_told_apart(self, other, words):
        reason = unfitness(self.facts(**other), MODELS)
        assert bool(reason) == bool(words) and words in reason

    def test_each_gets_its_device_of_several(self):
        devices = [device_of(["cuda:0", "cuda:1"], Share(index, 3, None, True)) for index in range(3)]
        assert devices == ["cuda:0", "cuda:1", "cuda:0"]
        assert device_of(["cpu"], Share(1, 2, None, True)) == "cpu"

    @pytest.mark.parametrize("asked", ["auto", "cuda"])
    def test_each_gets_a_gpu_of_its_machine_unless_it_was_given_one(self, monkeypatch, asked):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        shares = [Share(index, 5, None, False) for index in range(5)]
        expected = ["cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:0"]
        assert [device_of([asked], share) for share in shares] == expected
        assert device_of([asked], Share(0, 1, None, False)) == asked
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
        assert device_of([asked], shares[3]) == asked

    def test_one_process_computes_on_one_gpu(self, monkeypatch):
        """What a worker runs its cases on, down to the runner that it makes."""
        runners = []
        monkeypatch.setattr(
            "LesionDecompLib.cli.batch.runner.CaseRunner", lambda *given: runners.append(given[3]) or given
        )
        monkeypatch.setattr("LesionDecompLib.models.bundle.find_bundle", lambda name, task: task)
        devices = ["cuda:0", "cuda:1", "cuda:2"]
        task = SimpleNamespace(arguments=lambda: SimpleNamespace(model=None, device=devices, overwrite=True))
        for index in range(3):
            place = worker._Workplace(Share(index, 3, None, True))
            place.runner_for(task)
            place.runner_for(task)  # its networks stay loaded
        assert runners == devices

    @pytest.mark.parametrize(
        ("workers", "threads", "expected"), [(1, None, 6), (2, None, 3), (4, None, 1), (9, None, 1), (2, 5, 5)]
    )
    def test_each_computes_on_its_part_of_the_cores_unless_a_number_is_given(
        self, monkeypatch, workers, threads, expected
    ):
        pytest.importorskip("dask")
        monkeypatch.setattr("dask.system.CPU_COUNT", 6)
        before = torch.get_num_threads()
        torch.set_num_threads(2)  # neither of those expected: as Dask's nanny, which sets OMP_NUM_THREADS
        try:
            compute_on(Share(0, workers, threads, local=False))
            assert torch.get_num_threads() == expected
        finally:
            torch.set_num_threads(before)


class TestTurns:
    def test_one_case_a_place_and_a_place_is_left_for_the_next_alone(self):
        turns, log, lock = Turns(), [], threading.Lock()

        def case(number: int, alone: bool) -> None:
            with turns.taken(alone):
                for place, move in (("read", None), ("networks", turns.to_networks), ("write", turns.to_writing)):
                    if move is not None:
                        move()
                    with lock:
                        log.append((place, number, "begins"))
                    time.sleep(0.01)
                    with lock:
                        log.append((place, number, "ends"))

        threads = [threading.Thread(target=case, args=(number, number == 3)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(log) == 36
        for place in ("read", "networks", "write"):
            states = [state for where, _, state in log if where == place]
            assert states == ["begins", "ends"] * 6
        alone = [position for position, (_, number, _) in enumerate(log) if number == 3]
        assert alone == list(range(alone[0], alone[0] + 6))  # nothing of another case in between


def test_the_summary_is_there_from_the_first_finished_case_on(tmp_path):
    cases = [Case(name, tmp_path / name, tmp_path / "out" / name) for name in ("a", "b", "c")]
    written = RunningSummary(tmp_path / "out" / "summary.csv", cases)
    cases[1].status = "done"
    written.update()
    assert summary(tmp_path / "out") == {"a": ("not run", ""), "b": ("done", ""), "c": ("not run", "")}
    cases[0].status, cases[0].message = "failed", "for a reason"
    written.update()  # within the same half minute: not yet
    assert summary(tmp_path / "out")["a"] == ("not run", "")
    written.write()
    assert summary(tmp_path / "out")["a"] == ("failed", "for a reason")


class TestBoard:
    def test_the_line_counts_and_reckons_the_rate_from_what_this_run_has_done(self, monkeypatch):
        now = [1000.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        board = Board(total=100, there=40)
        assert board.line(2) == "40 of 100 cases done, 0 failed, 2 workers"
        now[0] += 360
        for number in range(10):
            board.count(failed=number == 0)
        assert board.line(1) == "49 of 100 cases done, 1 failed, 100 an hour, 30 min left, 1 worker"


@pytest.fixture(scope="module")
def client() -> Iterator:
    """Of two workers in this process."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


class TestWindow:
    def test_many_items_are_few_tasks_at_a_time_and_each_comes_back_once(self, client):
        window = TaskWindow[int](client, "square", lambda item, slot: (item, slot), square)
        items, got, most, slots = iter(range(300)), [], 0, set()
        while True:
            window.fill(items, 2)
            if not len(window):
                break
            most = max(most, len(window))
            for ended in window.ended(5.0):
                got.append((ended.item, ended.result))
                slots.add(ended.slot)
        assert sorted(got) == [(n, n * n) for n in range(300)]
        assert most == 2 * AHEAD and len(slots) == 2 * AHEAD

    def test_the_scheduler_notes_nothing_of_what_was_submitted(self, client):
        from LesionDecompLib.cli.batch.spans import note_no_submissions

        def noted(dask_scheduler) -> int:
            spans = dask_scheduler.extensions["spans"].spans.values()
            return sum(len((span._metadata or {}).get("collections", ())) for span in spans)

        def noted_of_twenty() -> int:
            before = client.run_on_scheduler(noted)
            client.gather([client.submit(divide, 4, key=f"noted {number}", pure=False) for number in range(20)])
            return client.run_on_scheduler(noted) - before

        assert noted_of_twenty() > 0  # if not, Dask has mended it
        for _ in range(2):
            client.run_on_scheduler(note_no_submissions)
            assert noted_of_twenty() == 0

    def test_an_error_comes_back_and_a_task_is_submitted_anew_on_demand(self, client):
        window = TaskWindow[int](client, "fail", lambda item, slot: item, divide)
        items, tries = iter([0, 4]), []
        while True:
            window.fill(items, 1)
            if not len(window):
                break
            for ended in window.ended(5.0):
                tries.append((ended.item, type(ended.error).__name__, ended.result))
                if ended.error is not None and len(tries) < 4:
                    window.resubmit(ended.slot)
        assert sorted(tries, key=str).count((0, "ZeroDivisionError", None)) >= 3
        assert (4, "NoneType", 1.0) in tries


def square(task: tuple[int, int]) -> int:
    return task[0] ** 2


def divide(task: int) -> float:
    return 4 / task


@pytest.mark.slow
class TestSameResults:
    def test_two_workers_write_what_one_process_writes_and_a_killed_run_is_resumed(self, studies, tmp_path):
        arguments = ["segment", studies, "--quiet", "--device", "cpu", "--threads", "1"]
        alone = run_apart(tmp_path, tmp_path / "home", *arguments, "-o", tmp_path / "alone")
        assert alone.status == 1 and "4 of 5 cases done" in alone.err, alone.err

        # Killed without warning once the first case is there.
        out = tmp_path / "out"
        arguments += ["-o", out, "--processes", "2"]
        command = [sys.executable, "-m", "LesionDecompLib", *map(str, arguments)]
        process = subprocess.Popen(
            command, env=environment(tmp_path), start_new_session=True, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 200
        while not list(out.glob("*/report.json")) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        process.kill()
        process.wait()

        together = run_apart(tmp_path, tmp_path / "home", *arguments)
        assert together.status == 1 and "4 of 5 cases done" in together.err, together.err
        assert without_reports(out) == without_reports(tmp_path / "alone")
        assert not hidden(out)
        reports = [json.loads((out / f"ct{n}" / "report.json").read_text("utf-8")) for n in range(4)]
        assert {report["parameters"]["device"] for report in reports} == {"cpu"}

    def test_workers_started_by_hand_write_the_same_and_one_that_differs_is_left_out(self, studies, tmp_path):
        arguments = ["segment", studies, "--device", "cpu", "--threads", "1"]
        alone = run_apart(tmp_path, tmp_path / "home", *arguments, "--quiet", "-o", tmp_path / "alone")
        assert "4 of 5 cases done" in alone.err, alone.err
        with handmade_cluster(tmp_path / "cluster", environment(tmp_path), workers=1) as cluster:
            older = tmp_path / "older"
            shutil.copytree(LIBRARY_HOME / "LesionDecompLib", older / "LesionDecompLib")
            (older / "Resources").symlink_to(LIBRARY_HOME / "Resources")
            init = older / "LesionDecompLib" / "__init__.py"
            init.write_text(init.read_text("utf-8").replace(f'"{__version__}"', '"0.0.1"'), "utf-8")
            cluster.environment = environment(tmp_path, PYTHONPATH=str(older))
            cluster.start_worker("--name", "older")
            time.sleep(5)
            done = run_apart(
                tmp_path, tmp_path / "home", *arguments, "-o", tmp_path / "out", "--scheduler", cluster.file
            )
        assert "4 of 5 cases done" in done.err, done.err
        assert f"is left out: it has LesionDecomp 0.0.1, this is {__version__}." in done.err
        assert without_reports(tmp_path / "out") == without_reports(tmp_path / "alone")
        assert not hidden(tmp_path / "out")
