"""What appears under its final name is complete; what fails leaves everything as it was."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import process_environment, snapshot
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.io.atomic import (
    PARTIAL,
    atomic_file,
    check_writable,
    own_prefix,
    process_mark,
    remove_left_by,
    staged_folder,
    write_bytes,
    write_text,
)
from LesionDecompLib.io.folder_lock import LOCK_NAME, sole_writer

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX permissions and signals")


class TestFile:
    def test_a_failure_half_way_keeps_the_old_content_and_leaves_nothing_else(self, tmp_path):
        write_text(tmp_path / "report.json", "old")
        before = snapshot(tmp_path)
        with pytest.raises(ZeroDivisionError), atomic_file(tmp_path / "report.json", "w") as stream:
            stream.write("new, but only ha")
            raise ZeroDivisionError
        assert snapshot(tmp_path) == before

    def test_text_is_utf8_with_unix_line_ends(self, tmp_path):
        write_text(tmp_path / "a.csv", "größe\n")
        assert (tmp_path / "a.csv").read_bytes() == "größe\n".encode()

    def test_a_missing_folder_is_one_sentence(self, tmp_path):
        with pytest.raises(LesionDecompError, match=r"^Writing the results: found .*; expected "):
            write_bytes(tmp_path / "absent" / "a", b"")

    @posix
    def test_results_get_the_permissions_of_any_new_file(self, tmp_path):
        (tmp_path / "usual").touch()
        write_bytes(tmp_path / "ours", b"")
        assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


class TestFolder:
    def test_a_new_folder_appears_with_its_parents_and_everything_in_it(self, tmp_path):
        with staged_folder(tmp_path / "a" / "b") as staging:
            (staging / "one").write_text("1")
            assert not (tmp_path / "a").exists()
        assert list(snapshot(tmp_path)) == ["a", "a/b", "a/b/one"]

    def test_a_failure_leaves_no_folder_behind(self, tmp_path):
        with pytest.raises(ZeroDivisionError), staged_folder(tmp_path / "a" / "b") as staging:
            (staging / "one").write_text("1")
            raise ZeroDivisionError
        assert snapshot(tmp_path) == {}

    def test_other_files_stay_and_retired_ones_go(self, tmp_path):
        for name in ("notes.txt", "overview.png", "report.json"):
            (tmp_path / name).write_text("old")
        with staged_folder(tmp_path, overwrite=True, last="report.json", retired=("overview.png",)) as staging:
            (staging / "report.json").write_text("new")
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
            "notes.txt": "old",
            "report.json": "new",
        }

    def test_without_leave_nothing_is_replaced(self, tmp_path):
        (tmp_path / "report.json").write_text("old")
        before = snapshot(tmp_path)
        with pytest.raises(LesionDecompError, match="an earlier"), staged_folder(tmp_path) as staging:
            (staging / "report.json").write_text("new")
            (staging / "a.csv").write_text("new")
        assert snapshot(tmp_path) == before

    def test_without_leave_no_retired_file_goes(self, tmp_path):
        (tmp_path / "methods.txt").write_text("the user's own")
        with (
            pytest.raises(LesionDecompError, match=r"an earlier methods\.txt in"),
            staged_folder(tmp_path, last="report.json", retired=("methods.txt",)) as staging,
        ):
            (staging / "report.json").write_text("new")
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"methods.txt": "the user's own"}

    def test_the_last_file_is_missing_while_the_set_is_incomplete(self, tmp_path, monkeypatch):
        for name in ("a", "b", "report.json"):
            (tmp_path / name).write_text("old")
        seen, move = [], os.replace

        def watched(source, target):
            seen.append((tmp_path / "report.json").exists())
            move(source, target)

        monkeypatch.setattr(os, "replace", watched)
        with staged_folder(tmp_path, overwrite=True, last="report.json") as staging:
            for name in ("a", "b", "report.json"):
                (staging / name).write_text("new")
        assert seen == [False, False, False]

    def test_a_folder_that_another_run_fills_meanwhile_is_not_touched(self, tmp_path):
        with pytest.raises(LesionDecompError), staged_folder(tmp_path / "case") as staging:
            (staging / "report.json").write_text("late")
            (tmp_path / "case").mkdir()
            (tmp_path / "case" / "report.json").write_text("first")
        assert (tmp_path / "case" / "report.json").read_text() == "first"
        assert list(snapshot(tmp_path)) == ["case", "case/report.json"]

    def test_a_folder_that_another_run_fills_meanwhile_is_replaced_whole_where_that_is_allowed(self, tmp_path):
        with staged_folder(tmp_path / "case", overwrite=True, last="b", retired=("c",)) as staging:
            (staging / "a").write_text("late")
            (staging / "b").write_text("late")
            (tmp_path / "case").mkdir()
            for name in ("a", "b", "c"):
                (tmp_path / "case" / name).write_text("first")
        assert {path.name: path.read_text() for path in (tmp_path / "case").iterdir()} == {"a": "late", "b": "late"}

    def test_folders_are_replaced_like_files(self, tmp_path):
        for text in ("old", "new"):
            with staged_folder(tmp_path, overwrite=True, last="index.csv") as staging:
                (staging / "slices").mkdir()
                (staging / "slices" / text).write_text(text)
                (staging / "index.csv").write_text(text)
        assert list(snapshot(tmp_path)) == ["index.csv", "slices", "slices/new"]

    @pytest.mark.parametrize("fails", ["a", "report.json"])
    def test_a_failure_between_two_files_brings_the_old_ones_back(self, tmp_path, monkeypatch, fails):
        for name in ("a", "b", "overview.png", "report.json"):
            (tmp_path / name).write_text("old")
        before, move = snapshot(tmp_path), os.replace

        def failing(source, target):
            if target == tmp_path / fails:
                raise OSError(errno.EIO, "Input/output error")
            move(source, target)

        monkeypatch.setattr(os, "replace", failing)
        with (
            pytest.raises(LesionDecompError, match="Input/output error"),
            staged_folder(tmp_path, True, last="report.json", retired=("overview.png",)) as staging,
        ):
            for name in ("a", "b", "report.json"):
                (staging / name).write_text("new")
        assert snapshot(tmp_path) == before

    @pytest.mark.parametrize("interrupted", [False, True])
    def test_earlier_files_that_cannot_be_put_back_are_kept(self, tmp_path, monkeypatch, interrupted):
        """One file refuses to return, or a second interrupt comes: no earlier file is lost."""
        case = tmp_path / "case"
        case.mkdir()
        for name in ("a", "b", "report.json"):
            (case / name).write_text(f"old {name}")
        move, error = os.rename, KeyboardInterrupt() if interrupted else OSError(errno.EIO, "Input/output error")

        def failing(source, target):
            if target == case / "b":  # both the new one, and the earlier one on its way back
                raise error
            move(source, target)

        monkeypatch.setattr(os, "replace", failing)
        monkeypatch.setattr(os, "rename", failing)
        with (
            pytest.raises(KeyboardInterrupt if interrupted else LesionDecompError) as refused,
            staged_folder(case, True, last="report.json") as staging,
        ):
            for name in ("a", "b", "report.json"):
                (staging / name).write_text("new")
        (kept,) = case.glob("earlier-results-*")
        assert interrupted or f"lie in '{kept.name}'" in str(refused.value)
        found = {path.name: path.read_text() for path in [*case.iterdir(), *kept.iterdir()] if path.is_file()}
        assert found == {name: f"old {name}" for name in ("a", "b", "report.json")}
        assert (case / "a").exists() and not (case / "report.json").exists()  # which stands for a complete set
        monkeypatch.undo()
        with staged_folder(case, True, last="report.json") as staging:
            (staging / "report.json").write_text("new")
        assert (kept / "b").read_text() == "old b"

    def test_checking_a_folder_leaves_no_trace(self, tmp_path):
        check_writable(tmp_path)
        check_writable(tmp_path / "new" / "newer")
        assert snapshot(tmp_path) == {}

    def test_a_file_in_the_way_is_reported(self, tmp_path):
        (tmp_path / "file").write_text("")
        for folder in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(LesionDecompError, match="a file where a folder should be"):
                check_writable(folder)

    @pytest.mark.slow
    @posix
    @pytest.mark.parametrize("seed", range(6))
    def test_a_killed_process_leaves_all_of_a_new_folder_or_nothing(self, tmp_path, seed):
        code = (
            "import sys; from LesionDecompLib.io.atomic import staged_folder\n"
            "print('ready', flush=True)\n"
            "for n in range(10**6):\n"
            "    with staged_folder(f'case{n}', last='report.json') as staging:\n"
            "        for name in ('a', 'b', 'report.json'):\n"
            "            (staging / name).write_bytes(bytes(5000))\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=tmp_path, env=process_environment(tmp_path), stdout=subprocess.PIPE
        )
        process.stdout.readline()
        time.sleep(0.02 + 0.017 * seed)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for folder in tmp_path.glob("case*"):
            assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "report.json"]
            assert all(path.stat().st_size == 5000 for path in folder.iterdir())


@posix
class TestSeveralProcesses:
    def start(self, folder, code):
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=folder, env=process_environment(folder), stdout=subprocess.PIPE
        )
        assert process.stdout.readline() == b"ready\n"
        return process

    def reported(self, folder, code):
        command, environment = [sys.executable, "-c", code], process_environment(folder)
        return subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE).stdout.decode()

    def test_two_runs_into_one_folder_never_leave_a_mix(self, tmp_path):
        code = (
            "import sys; from LesionDecompLib.io.atomic import staged_folder\n"
            "print('ready', flush=True)\n"
            "for n in range(10**6):\n"
            "    with staged_folder('case', True, last='report.json', retired=('odd',)) as staging:\n"
            "        for name in ['a', 'b', 'report.json', *(['odd'] if {odd} else [])]:\n"
            "            (staging / name).write_text(f'{odd} {{n}}')\n"
        )
        processes = [self.start(tmp_path, code.format(odd=odd)) for odd in (0, 1)]
        folder, seen = tmp_path / "case", set()
        try:
            end = time.monotonic() + 60
            while len(seen) < 40 and time.monotonic() < end:
                for process in processes:
                    process.send_signal(signal.SIGSTOP)
                contents = {path.name: path.read_text() for path in folder.glob("[!.]*")} if folder.exists() else {}
                assert len(set(contents.values())) <= 1, contents
                if "report.json" in contents:
                    odd = contents["report.json"][0] == "1"
                    assert sorted(contents) == (["a", "b", "odd", "report.json"] if odd else ["a", "b", "report.json"])
                    seen.add(contents["report.json"])
                for process in processes:
                    process.send_signal(signal.SIGCONT)
                time.sleep(0.003)
        finally:
            for process in processes:
                process.kill()
                process.communicate()
        assert {text[0] for text in seen} == {"0", "1"}

    def test_what_a_killed_run_left_is_removed_and_what_a_living_one_makes_is_not(self, tmp_path):
        (tmp_path / "case").mkdir()
        code = (
            "import sys, time; from LesionDecompLib.io.atomic import atomic_file, staged_folder\n"
            "with staged_folder('case', True) as staging, atomic_file('report.json') as stream:\n"
            "    (staging / 'a').write_text('half')\n"
            "    print('ready', flush=True); time.sleep(600)\n"
        )
        killed, living = self.start(tmp_path, code), self.start(tmp_path, code)
        assert len(list(tmp_path.rglob(".*.partial"))) == 4
        killed.kill()
        killed.communicate()
        check_writable(tmp_path / "case")
        write_text(tmp_path / "report.json", "whole")
        assert len(list(tmp_path.rglob(".*.partial"))) == 2
        living.kill()
        living.communicate()
        check_writable(tmp_path / "case")
        write_text(tmp_path / "report.json", "whole")
        assert list(snapshot(tmp_path)) == ["case", "report.json"]

    def test_what_was_left_where_the_output_folder_was_still_missing_is_removed_too(self, tmp_path):
        code = (
            "import time; from LesionDecompLib.io.atomic import staged_folder\n"
            "with staged_folder('out/case') as staging:\n"
            "    (staging / 'a').write_text('half'); print('ready', flush=True); time.sleep(600)\n"
        )
        killed = self.start(tmp_path, code)
        killed.kill()
        killed.communicate()
        assert len(list(tmp_path.glob(".case.*.partial"))) == 1
        (tmp_path / "out").mkdir()  # by another case
        check_writable(tmp_path / "out" / "case")
        assert list(snapshot(tmp_path)) == ["out"]

    def test_a_second_writer_is_refused_until_the_first_has_ended(self, tmp_path):
        code = (
            "import time; from LesionDecompLib.io.folder_lock import sole_writer\n"
            "with sole_writer('.', wait=False):\n"
            "    print('ready', flush=True); time.sleep(600)\n"
        )
        first = self.start(tmp_path, code)
        with pytest.raises(LesionDecompError, match="another run that writes into"), sole_writer(tmp_path, wait=False):
            pytest.fail("two at once")
        first.kill()
        first.communicate()
        with sole_writer(tmp_path, wait=False):
            pass
        assert snapshot(tmp_path) == {}

    @pytest.mark.slow
    def test_whoever_waits_has_the_lock_of_a_killed_process(self, tmp_path):
        hold = (
            "import time; from LesionDecompLib.io.folder_lock import sole_writer\n"
            "with sole_writer('.'): print('ready', flush=True); time.sleep(600)\n"
        )
        ask = (
            "from LesionDecompLib.io.folder_lock import sole_writer\n"
            "try:\n"
            "    with sole_writer('.', wait=False): print('alone', flush=True)\n"
            "except Exception as error: print(error, flush=True)\n"
        )
        first = self.start(tmp_path, hold)
        assert (tmp_path / LOCK_NAME).exists()
        assert "found another run that writes into" in self.reported(tmp_path, ask)
        waiting = subprocess.Popen(
            [sys.executable, "-c", hold], cwd=tmp_path, env=process_environment(tmp_path), stdout=subprocess.PIPE
        )
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.5)
        first.kill()
        first.communicate()
        assert waiting.stdout.readline() == b"ready\n"
        waiting.kill()
        waiting.communicate()
        (tmp_path / LOCK_NAME).touch()  # as a killed process leaves it
        assert self.reported(tmp_path, ask) == "alone\n"
        assert snapshot(tmp_path) == {}


def test_what_a_process_elsewhere_left_is_removed_once_it_is_known_to_be_gone(tmp_path):
    folder, file = (tmp_path / f".{name}.0123abcd-77-x{PARTIAL}" for name in ("case1", "case2"))
    folder.mkdir()
    (folder / "heatmap.nrrd").write_bytes(b"half")
    file.write_bytes(b"half")
    of_another = tmp_path / f".case3.0123abcd-771-x{PARTIAL}"
    own = tmp_path / f"{own_prefix('case4')}x{PARTIAL}"
    result = tmp_path / f"case5.0123abcd-77-x{PARTIAL}"  # not hidden, so none of ours
    for path in (of_another, own, result):
        path.write_bytes(b"whole")
    remove_left_by(tmp_path, {"0123abcd-77"})
    assert set(tmp_path.iterdir()) == {of_another, own, result}
    remove_left_by(tmp_path, {process_mark()})
    assert set(tmp_path.iterdir()) == {of_another, result}
    remove_left_by(tmp_path / "absent", {"0123abcd-77"})


def test_a_parent_that_another_case_makes_meanwhile_is_no_file_in_the_way(tmp_path, monkeypatch):
    out, is_dir = tmp_path / "out", Path.is_dir

    def is_folder(path):
        found = is_dir(path)
        if path == out and not out.exists():
            out.mkdir()
        return found

    monkeypatch.setattr(Path, "is_dir", is_folder)
    with staged_folder(out / "a") as staging:
        (staging / "report.json").write_text("{}")
    assert (out / "a" / "report.json").read_text() == "{}"
