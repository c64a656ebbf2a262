"""The jobs that are killed: each a command line, what may be seen after a kill, and what must be there in the end."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from command_line import small_ct, small_models
from LesionDecompLib.models import bundle as bundles
from LesionDecompLib.models.bundle import ModelBundle, find_bundle
from LesionDecompLib.models.torch_file import load_torch_file
from LesionDecompLib.training.loop import CHECKPOINT_NAME, LOG_NAME, log_rows
from PIL import Image
from tiny_training import write_training_set


@dataclass(frozen=True)
class Job:
    """One command, run in a folder of its own.

    :param arguments: of ``lesiondecomp``, results in ``out``.
    :param prepare: makes what the command finds there.
    :param seen: checks what lies in ``out`` after a kill, given a finished run's ``out``; raises AssertionError.
    """

    arguments: tuple[str, ...]
    seen: Callable[[Path, Path], None]
    prepare: Callable[[Path], None] = lambda folder: None


def jobs(home: Path) -> dict[str, Job]:
    """All jobs by name; their inputs are made in ``home``. From then on this process uses the models made there."""
    (home / "in").mkdir()
    ct, mask, _ = small_ct(home / "in")
    shutil.copyfile(ct, home / "in" / "second.nrrd")
    lungs = find_bundle(None, "lungs").path
    models = small_models(home / "models")
    shutil.rmtree(models / "untrained-lungs")
    shutil.copytree(lungs, models / lungs.name)
    bundles.model_folders = lambda: [models]
    (home / "labels.csv").write_text(
        "case,slice,label,split\n" + "".join(f"chest,{k},{k % 2},train\n" for k in range(3, 9))
    )
    one = ("segment", str(ct), "--lung-mask", str(mask), "-o", "out", "--device", "cpu", "--quiet", "--overwrite")
    old = home / "old"

    def older_results(folder: Path) -> None:
        if not old.exists():  # made once, by another threshold: no file is that of the new results
            from LesionDecompLib.__main__ import main

            main([*one[:5], str(old), *one[6:], "--threshold", "0.2"])
            (old / "scene.mrb").write_bytes(b"of the older results")
        shutil.copytree(old, folder / "out")

    several = ("segment", str(ct), str(home / "in" / "second.nrrd"), *one[4:])
    return {
        "segment": Job(one, whole_or_nothing),
        "pictures": Job((*one, "--overview", "--report"), whole_or_nothing),
        "replace": Job(one, lambda out, reference: one_of_two(out, reference, old), older_results),
        "batch": Job(several, each_case_whole_or_nothing),
        "train": Job(training_command(home), training_can_go_on),
        "slices": Job(
            ("slices", str(ct), "--labels", str(home / "labels.csv"), "-o", "out", "--overwrite"), whole_or_nothing
        ),
        "scene": Job((*one, "--scene"), whole_or_nothing),
    }


def training_command(home: Path) -> tuple[str, ...]:
    """Arguments of a small training into ``out``, on a set that is made in ``home``."""
    write_training_set(home / "set", train=4, val=2, test=2)
    settings = ("steps=12", "batch_lesion=2", "batch_normal=2", "batch_painted=2", "crop=[64, 64]", "judge_steps=2",
                "network.channels=4", "network.levels=3", "critic_channels=4")  # fmt: skip
    command = ("train", "--data", str(home / "set"), "-o", "out", "--device", "cpu", "--threads", "1", "--resume")
    return (*command, "--checkpoint-seconds", "0", *(part for text in settings for part in ("--set", text)))


def whole_or_nothing(out: Path, reference: Path) -> None:
    """Nothing, or all that an unbroken run makes."""
    if visible(out):
        assert contents(out) == contents(reference)


def one_of_two(out: Path, reference: Path, old: Path) -> None:
    """Files of the older results or of the new ones, never of both; with a report all of them."""
    found, new, before = visible(out), contents(reference), contents(old)
    here = contents(out)
    assert all(here[name] == new.get(name) for name in found) or all(here[name] == before.get(name) for name in found)
    if "report.json" in found:
        assert here in (new, before)


def each_case_whole_or_nothing(out: Path, reference: Path) -> None:
    """For every case nothing, or all of it; the summary, where there is one, reports of cases that are there."""
    for case in ("chest", "second"):
        whole_or_nothing(out / case, reference / case)
    if (out / "summary.csv").exists():
        with open(out / "summary.csv", encoding="utf-8-sig", newline="") as stream:
            done = [row["Case"] for row in csv.DictReader(stream) if row["Status"] == "done"]
        assert all((out / case / "report.json").exists() for case in done)


def training_can_go_on(out: Path, reference: Path) -> None:
    """Whatever a training has written so far is whole."""
    if (out / "config.json").exists():
        assert json.loads((out / "config.json").read_text("utf-8"))["task"] == "lesions"
    if (out / CHECKPOINT_NAME).exists():
        assert 0 < load_torch_file(out / CHECKPOINT_NAME)["step"] <= 12
    if (out / LOG_NAME).exists():
        log_rows(out / LOG_NAME)
    for picture in out.glob("*.png"):
        Image.open(picture).load()
    if (out / "bundle").exists():
        ModelBundle.load(out / "bundle").network()


def visible(folder: Path) -> list[str]:
    """Names of all files below ``folder`` but hidden ones, sorted."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def contents(folder: Path) -> dict[str, str]:
    """Hash of each visible file, times of day and run times taken out."""
    return {name: hashlib.sha256(_content(folder / name)).hexdigest() for name in visible(folder)}


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    if path.name == "report.json":
        report = json.loads(data)
        report.pop("run")
        report.get("outputs", {}).pop("report.html", None)  # holds the time too
        report.get("outputs", {}).pop("scene.mrb", None)
        return json.dumps(report, sort_keys=True).encode()
    if path.name == "log.csv":  # the seconds; and how many of them went by
        return re.sub(rb"(?m)^(\d+),[\d.]+,", rb"\1,", data)
    if path.name == CHECKPOINT_NAME:
        return repr(_tensors(load_torch_file(path))).encode()
    if path.name in ("curves.png", "report.html"):
        return b"there"  # drawn over, and with, the time
    if path.name == "scene.mrb" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            names = sorted(re.sub(r"^[^/]*/", "", name) for name in archive.namelist())
        return "\n".join(names).encode()
    return data


def _tensors(content: object) -> object:
    if isinstance(content, dict):
        return {key: _tensors(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_tensors(value) for value in content]
    return content.numpy().tobytes() if hasattr(content, "numpy") else content
