"""The example scripts run: the clinician's on MRML nodes, the researcher's and the engineer's as programs."""

from __future__ import annotations

import csv
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from LesionDecompLib.__main__ import main
from LesionDecompLib.models.bundle import ModelBundle
from repository import ROOT
from tiny_training import TINY

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "Examples"
ELSEWHERE = {"slurm_batch": "tools/test_one_node_slurm.py"}


def run(name: str, monkeypatch, *arguments: object) -> int:
    """Run an example as ``python Examples/NAME.py`` does; its exit status."""
    path = str(EXAMPLES / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [path, *(str(argument) for argument in arguments)])
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def small_sample(sample_folder, tmp_path) -> Path:
    """A study: a block of slices through the sample CT's lungs, every fourth voxel of each slice."""
    image = sitk.ReadImage(str(sample_folder / "chest_ct_tumor.nrrd"))[::4, ::4, 18:34]
    path = tmp_path / "studies" / "first.nrrd"
    path.parent.mkdir()
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


def test_every_example_is_run_here():
    text = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        if path.stem in ELSEWHERE:
            assert f'"{path.name}"' in (ROOT / "Testing" / ELSEWHERE[path.stem]).read_text(encoding="utf-8")
        else:
            assert re.search(rf'run\(\s*"{path.stem}"', text), f"{path.name} is not run by a test"


def test_clinician(module, mrml_scene, small_sample, monkeypatch, capsys):
    slicer = pytest.importorskip("slicer", reason="slicer-core is not installed (pip install .[headless])")
    ct_node = slicer.util.loadVolume(str(small_sample))
    assert run("slicer_console", monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["threshold 0.3", "threshold 0.4", "threshold 0.5"]
    volumes = [float(line.split()[2]) for line in lines]
    assert volumes == sorted(volumes, reverse=True) and volumes[0] > volumes[-1]
    lesions = slicer.util.getNodesByClass("vtkMRMLLabelMapVolumeNode")
    voxel_ml = np.prod(ct_node.GetSpacing()) / 1000
    counted = [np.count_nonzero(slicer.util.arrayFromVolume(node)) * voxel_ml for node in lesions]
    assert any(ml == pytest.approx(volumes[-1], abs=0.06) for ml in counted)
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 1


def test_researcher(small_sample, tmp_path, monkeypatch, capsys):
    other = small_sample.with_name("second.nrrd")
    other.write_bytes(small_sample.read_bytes())
    rows = ["case,slice,label,split"]
    for case, split in (("first", "train"), ("second", "val")):
        rows += [f"{case},{z},{'lesion' if z < 8 else 'normal'},{split}" for z in (5, 6, 9, 10)]
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(rows), encoding="utf-8")
    settings = [part for setting in [*TINY, "steps=2"] for part in ("--set", setting)]
    status = run(
        "train_from_labels", monkeypatch, small_sample, other, "--labels", labels, "-o", tmp_path / "study", *settings
    )
    assert status == 0
    assert ModelBundle.load(tmp_path / "study" / "run" / "bundle", "lesions").name == "my-lesions"
    assert "Involvement (%): " in capsys.readouterr().out


@pytest.mark.slow
def test_another_engine(sample_folder, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (pip install .[onnx])")
    ct, results = sample_folder / "chest_ct_tumor.nrrd", tmp_path / "results"
    assert main(["segment", str(ct), "-o", str(results), "--device", "cpu", "--quiet"]) == 0
    assert main(["models", "--export", "lesions-decomposition", "-o", str(tmp_path / "lesions.onnx")]) == 0
    files = [tmp_path / "lesions.onnx", ct, results / "lungs.nrrd", tmp_path / "heat.npy"]
    assert run("onnx_heat", monkeypatch, *files) == 0
    assert "cm² above the threshold" in capsys.readouterr().out
    heat, own = np.load(files[-1]), sitk.ReadImage(str(results / "heatmap.nrrd"))
    pixel_mm2 = np.prod(own.GetSpacing()[:2])
    area = [(found >= 0.4).sum(axis=(1, 2)) for found in (heat, sitk.GetArrayFromImage(own))]
    # Without the lungs' rim, which the product gives the heat of what lies next to it.
    assert 0.5 < area[0].sum() * 1.6**2 / (area[1].sum() * pixel_mm2) < 1.05
    assert np.corrcoef(*area)[0, 1] > 0.9


def test_engineer(small_sample, tmp_path, monkeypatch, capsys):
    (small_sample.parent / "broken.nrrd").write_bytes(small_sample.read_bytes()[:300])
    (small_sample.parent / ".hidden").write_bytes(b"")
    results = tmp_path / "results"
    assert run("nightly_batch", monkeypatch, small_sample.parent, results) == 1
    captured = capsys.readouterr()
    assert "1 studies done, 1 failed" in captured.out and captured.err.startswith("broken: ")
    with open(results / "night.csv", encoding="utf-8") as stream:
        rows = {row["study"]: row for row in csv.DictReader(stream)}
    assert set(rows) == {"first", "broken"} and rows["broken"]["error"]
    assert float(rows["first"]["involvement (%)"]) >= 0
    report = results / "first" / "report.json"
    before = report.stat().st_mtime_ns
    (small_sample.parent / "broken.nrrd").unlink()
    # What is done is not done again.
    assert run("nightly_batch", monkeypatch, small_sample.parent, results) == 0
    assert report.stat().st_mtime_ns == before
