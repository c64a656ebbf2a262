"""Every command and every Python example of README.md and the pages it links to is run, in the order of the pages.

Commands of ``lesiondecomp`` are run as they are printed, in a folder that holds small files of the names they use. What
would take long is made small by :data:`SHRINK`; what needs a network, several machines or the whole suite has its
equivalent in :data:`EQUIVALENTS`. A command that is in neither fails the test: none is left out.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from LesionDecompLib import __version__
from LesionDecompLib.__main__ import main
from LesionDecompLib.measurement.statistics import read_statistics_csv
from LesionDecompLib.training import run as training_run
from masked_slices import write_masked_slices
from repository import ROOT
from tiny_bundle import write_format_1
from tiny_training import TINY

PAGES = (
    "README.md",
    "Documentation/tutorial.md",
    "Documentation/command_line.md",
    "Documentation/training.md",
    "CONTRIBUTING.md",
)
# One story: later commands use what earlier ones wrote, so that one process runs them all.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("pages")]


def settings(*values: str) -> list[str]:
    return [part for value in values for part in ("--set", value)]


def blocks(page: str, language: str) -> list[str]:
    """The page's code blocks in a language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(*pages: str) -> list[str]:
    """The pages' shell commands, each once: continued lines joined, comments left out."""
    lines = "\n".join(text for page in pages for text in blocks(page, "sh")).replace("\\\n", " ").splitlines()
    found = [command for line in lines if (command := re.sub(r"(^|\s)#.*", "", line).strip())]
    return list(dict.fromkeys(found))


# What is changed in a command of lesiondecomp so that it takes a second; the last rule whose pattern is found counts.
SHRINK: list[tuple[str, list[str]]] = [
    (r"^train ", settings(*TINY, "steps=2")),
    (r"--preset lungs", settings("steps=1", "batch=2", "channels=4")),
    (r"--preset classifier", settings("steps=2", "width=4", "batch_lesion=2", "batch_normal=2", "crop=[64, 64]")),
]


def shrunk(command: str) -> list[str]:
    """Arguments of a lesiondecomp command, made small."""
    command = re.sub(r"--hours \S+", "--hours 0.00001", command)
    command = re.sub(r"--device cuda\S*", "--device cpu", command)
    more = next((extra for pattern, extra in reversed(SHRINK) if re.search(pattern, command)), [])
    return [*shlex.split(command), *more]


def run_lesiondecomp(command: str) -> None:
    assert main(shrunk(command)) == 0, command


def run_make(command: str) -> None:
    """What make would do, less making the environment; of the suite, which is running, that it is what would run."""
    target = command.split()[1]
    # Under make itself this would be a make within make, which prints the folders it enters.
    outside = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    call = ["make", "--no-print-directory", "-n", target]
    done = subprocess.run(call, cwd=ROOT, env=outside, capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == 0, done.stderr
    recipe = done.stdout.splitlines()
    if target == "demo":  # one of the pages' own commands, and so run
        assert recipe[-1].removeprefix(".venv/bin/") in commands(*PAGES)
        return
    tools = {"test": ("ruff", "mypy", "pytest"), "lint": ("ruff",), "types": ("mypy",), "docs": ("pdoc",)}[target]
    for tool in tools:
        assert any(tool in line for line in recipe), f"make {target} runs no {tool}"
        subprocess.run([sys.executable, "-m", tool, "--version"], check=True, capture_output=True, timeout=60)


def run_pip(command: str) -> None:
    """Whoever runs this has installed the package, with extras: it is the one in this folder, and they exist."""
    assert importlib.metadata.version("lesiondecomp") == __version__
    scripts = importlib.metadata.entry_points(group="console_scripts", name="lesiondecomp")
    assert [script.load() for script in scripts] == [main]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra in re.findall(r"\[(\w+)\]", command):
        for requirement in project["optional-dependencies"][extra]:
            importlib.metadata.version(re.match(r"[\w.-]+", requirement).group(0))


def run_slurm(command: str) -> None:
    """The shell reads it; what each rank runs is run by one (several: training/test_ranks.py)."""
    subprocess.run(["bash", "-n", "-c", command], check=True, timeout=60)
    launcher, arguments = command.split(" -m LesionDecompLib ")
    assert launcher.startswith("srun ") and " torchrun " in launcher.replace("'", " ")
    arguments = re.sub(r"--set batch\.\w+=(\d+)", "", arguments.rstrip("'"))
    run_lesiondecomp(re.sub(r"\s+", " ", arguments))


def run_pytest(command: str) -> None:
    """Which tests it would run."""
    arguments = shlex.split(command)[3:]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stdout


EQUIVALENTS: list[tuple[str, Callable[[str], None]]] = [
    (r"^lesiondecomp ", lambda command: run_lesiondecomp(command.removeprefix("lesiondecomp "))),
    (r"^make \w+$", run_make),
    (r"^pip install '?\.(\[\w+\])?'?$", run_pip),
    (r"^srun ", run_slurm),
    (r"^\.venv/bin/python -m pytest ", run_pytest),
]


def equivalent(command: str) -> Callable[[str], None]:
    for pattern, run in EQUIVALENTS:
        if re.search(pattern, command):
            return run
    pytest.fail(f"no test knows how to run: {command}")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, sample_folder) -> Path:
    """A folder with the files that the pages' commands name, each small."""
    folder = tmp_path_factory.mktemp("readme")
    image = sitk.ReadImage(str(sample_folder / "chest_ct_tumor.nrrd"))[::4, ::4, 20:32]
    for name in ("CT.nii.gz", "OTHER.nrrd", "CT1.nii.gz", "CT2.nrrd"):
        sitk.WriteImage(image, str(folder / name), useCompression=True)
    write_dicom(image, folder / "DICOM_FOLDER")
    write_dicom(image, folder / "STUDIES" / "first")
    shutil.copy(folder / "CT2.nrrd", folder / "STUDIES")
    write_format_1(folder / "my_model")
    (folder / "inputs.txt").write_text("CT1.nii.gz\nCT2.nrrd\n", encoding="utf-8")
    rows = ["case,slice,label"]
    rows += [f"CT{case},{z},{'lesion' if z < 6 else 'normal'}" for case in (1, 2) for z in (3, 8)]
    (folder / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
    # Where the training set that the commands make would be too small to train on, one that is not stands in.
    write_masked_slices(folder / "SLICES_TO_TRAIN")
    lungs = image > -500
    for where, label in (("LUNG_CT", "lung"), ("CT_FOLDER", "lesion")):
        (folder / where).mkdir()
        sitk.WriteImage(image, str(folder / where / "a_ct.nii.gz"))
        mask = sitk.Cast(lungs == 0 if label == "lung" else lungs, sitk.sitkUInt8)
        sitk.WriteImage(mask, str(folder / where / f"a_{label}.nii.gz"))
    shutil.copy(folder / "LUNG_CT" / "a_lung.nii.gz", folder / "CT_FOLDER")
    return folder


def write_dicom(image: sitk.Image, folder: Path) -> None:
    """An axial series of an image, as a scanner would store it."""
    folder.mkdir(parents=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z in range(image.GetDepth()):
        plane = image[:, :, z]
        position = image.TransformIndexToPhysicalPoint((0, 0, z))
        tags = {
            "0008|0060": "CT",
            "0020|000e": "1.2.826.0.1.3680043.2.1125.1",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.2",
            "0008|0018": f"1.2.826.0.1.3680043.2.1125.3.{z}",
            "0020|0032": "\\".join(f"{mm:.6f}" for mm in position),
            "0020|0037": "\\".join(f"{c:.6f}" for c in np.array(image.GetDirection()).reshape(3, 3)[:, :2].T.ravel()),
            "0020|0013": str(z + 1),
            "0028|1052": "0",
            "0028|1053": "1",
        }
        for key, value in tags.items():
            plane.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{z:03d}.dcm"))
        writer.Execute(plane)


def written(folder: Path) -> set[str]:
    """Files two levels down."""
    return {path.relative_to(folder).as_posix() for path in folder.glob("*/*")}


def test_there_are_commands_to_run():
    least = dict(zip(PAGES, (4, 0, 9, 12, 5), strict=True))
    assert {page: len(commands(page)) for page in PAGES if len(commands(page)) < least[page]} == {}


@pytest.fixture(scope="module")
def failures(workplace) -> dict[str, BaseException]:
    """All commands, run one after the other in the folder; what went wrong, by command."""
    failed: dict[str, BaseException] = {}
    for command in commands(*PAGES):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(workplace)
            if "run/curves.png" in written(workplace):  # once is enough: they take longer than the steps
                patch.setattr(training_run, "draw_curves", lambda log, picture: False)
            if "--hours" in command:  # measuring what fits takes fifteen steps; test_lesion_task.py measures
                patch.setattr(training_run, "steps_within", lambda task, hours: 1)
            try:
                equivalent(command)(command)
            except (Exception, pytest.fail.Exception) as error:
                failed[command] = error
        if command.startswith("lesiondecomp train") and not (workplace / "other").exists():
            shutil.copytree(workplace / "run", workplace / "other")
        if command.startswith("lesiondecomp slices"):
            assert len(list((workplace / "SLICES").rglob("*.png"))) == 4
            shutil.rmtree(workplace / "SLICES")
            (workplace / "SLICES_TO_TRAIN").rename(workplace / "SLICES")
    return failed


@pytest.mark.parametrize("command", [pytest.param(command, id=command[:70]) for command in commands(*PAGES)])
def test_commands_run(command, failures):
    if command in failures:
        raise failures[command]


def test_tables_name_what_the_commands_write(workplace, failures):
    """The tables of files are those that the commands above left."""
    named = set(re.findall(r"^\| `(\S+\.\w+)` \|", (ROOT / PAGES[2]).read_text("utf-8"), re.MULTILINE))
    assert {path.name for path in (workplace / "results").iterdir()} <= named
    assert (workplace / "my_model" / "weights.safetensors").is_file()
    assert (workplace / "night" / "summary.csv").is_file() and (workplace / "run" / "curves.png").is_file()
    assert json.loads((workplace / "comparison" / "results.json").read_text("utf-8"))["split"] == "test"


def test_the_tutorial_reports_the_sample_s_measurements(workplace, failures):
    both = read_statistics_csv(workplace / "demo" / "statistics.csv")[0].values
    text = " ".join((ROOT / "Documentation" / "tutorial.md").read_text("utf-8").split())
    reported = re.search(r"The sample's lungs hold (\d+) mL; at the default threshold (\d+) mL of it, ([\d.]+) %", text)
    lung, lesion, share = (float(figure) for figure in reported.groups())
    assert both["lung_volume_ml"] == pytest.approx(lung, rel=0.005)
    assert both["lesion_volume_ml"] == pytest.approx(lesion, rel=0.02)
    assert both["involvement_percent"] == pytest.approx(share, abs=0.05)


def test_python_examples(module, mrml_scene, workplace, capsys, monkeypatch):
    import slicer

    monkeypatch.chdir(workplace)
    for page in PAGES:
        for block in blocks(page, "python"):
            slicer.util.loadVolume(str(workplace / "OTHER.nrrd"), {"name": "CT"})
            names = {"slicer": slicer}
            exec(compile(block, page, "exec"), names)
            if "slicer." in block:
                assert names["nodes"].threshold == 0.5
            else:
                assert read_statistics_csv(workplace / "from_python" / "statistics.csv")
