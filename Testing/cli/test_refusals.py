"""What a user meets first when something is not as it should be: options, arrays and DICOM headers that cannot be."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from command_line import names, run_here
from dicom_files import copy_slice, series_files
from LesionDecompLib.cli import error_sentence
from LesionDecompLib.ct.checks import check_chest_ct
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import ConfigError, InputError, LesionDecompError, ModelError, OutputError
from LesionDecompLib.io.readers import read_volume

GRID = np.diag([-1.0, -1.0, 2.0, 1.0])


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        (("segment", "ct.nrrd", "-o", "out", "--min-volume-ml", "-1"), "'-1' is not a volume in mL"),
        (("segment", "ct.nrrd", "-o", "out", "--min-volume-ml", "much"), "'much' is not a number"),
        (("segment", "ct.nrrd", "-o", "out", "--threshold", "0"), "'0' is not above 0 and at most 1"),
        (("segment", "ct.nrrd", "-o", "out", "--threshold", "nan"), "'nan' is not a number"),
        (("segment", "ct.nrrd", "-o", "out", "--batch-size", "0"), "'0' is not a whole number from 1 to 1024"),
        (("segment", "ct.nrrd", "-o", "out", "--batch-size", "²"), "'²' is not a whole number from 1 to 1024"),
        (("segment", "ct.nrrd", "-o", "out", "--device", "gpu"), "'gpu' is not one of auto, cpu, cuda"),
        (("segment", "ct.nrrd", "-o", "out", "--device", "cpu,cpu"), "several devices"),
        (("demo", "-o", "out", "--device", "cpu,"), "'cpu,' is not one of auto, cpu"),
        (("compare", "a.json", "b.json", "--tolerance", "2"), "'2' is not from 0 to 1"),
    ],
)
def test_options_that_cannot_be_are_usage_errors(capsys, tmp_path, monkeypatch, arguments, reported):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ct.nrrd").touch()
    done = run_here(capsys, *arguments)
    assert done.status == 2 and reported in done.err and "Traceback" not in done.err
    assert names(tmp_path) == ["ct.nrrd"]


@pytest.mark.parametrize("arguments", [("--card", "card.md"), ("--data", "slices")])
def test_a_model_card_takes_a_place_and_slices(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    done = run_here(capsys, "models", *arguments)
    assert done.status == 1
    assert done.err == "lesiondecomp: Model card: found one of --card and --data; expected both: where to write, and " \
        "slices to show.\n"  # fmt: skip
    assert names(tmp_path) == []


def test_an_error_nobody_thought_of_is_one_sentence_that_states_how_to_see_more(monkeypatch):
    monkeypatch.delenv("LESIONDECOMP_DEBUG", raising=False)
    assert error_sentence(ZeroDivisionError("division\n by zero")) == (
        "Internal error (ZeroDivisionError: division by zero); set LESIONDECOMP_DEBUG=1 to see where, and report it."
    )
    for error in (MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")):
        assert error_sentence(error).startswith("Out of memory; try a smaller --batch-size")
    monkeypatch.setenv("LESIONDECOMP_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        error_sentence(ZeroDivisionError())
    assert error_sentence(LesionDecompError("Reading", "nothing", "a CT")) == "Reading: found nothing; expected a CT."


@pytest.mark.parametrize(
    ("array", "matrix", "reported"),
    [
        (np.zeros((4, 4)), GRID, r"an array with 2 dimensions \(4×4\)"),
        (np.float64(3), GRID, r"an array with 0 dimensions \(a single number\)"),
        (np.zeros((0, 4, 4)), GRID, "a volume without voxels"),
        (np.zeros((2, 2, 2), complex), GRID, "voxels of type complex128"),
        (np.zeros((2, 2, 2), bool), GRID, "voxels of type bool"),
        (np.full((2, 2, 2), np.nan), GRID, "8 voxels that are NaN or infinite"),
        (np.array([[[0, np.inf, 1]]]), GRID, "1 voxels that are NaN or infinite"),
        (np.zeros((2, 2, 2)), np.eye(3), "not a finite 4×4 affine"),
        (np.zeros((2, 2, 2)), np.diag([1, 1, np.nan, 1]), "not a finite 4×4 affine"),
        (np.zeros((2, 2, 2)), np.diag([1.0, 0, 2, 1]), "a voxel spacing of 1×0×2 mm"),
        (np.zeros((2, 2, 2)), np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "span no volume"),
        (np.zeros((2, 2, 2)), np.diag([1.0, 1, 1, 2]), "a projective IJK to RAS matrix"),
    ],
)  # fmt: skip
def test_arrays_and_grids_that_are_no_ct_are_refused(array, matrix, reported):
    with pytest.raises(LesionDecompError, match=reported):
        Volume.from_array(array, matrix)


@pytest.mark.parametrize(
    ("low", "high", "reported"),
    [
        (7, 7, "7 in every voxel"),
        (-1024, -1000, "nothing but air"),
        (0, 255, "8-bit gr.y levels.*Load the original CT"),
        (0, 4000, "no air.*apply the rescale slope and intercept first"),
    ],
)
def test_values_that_are_no_hu_are_refused(low, high, reported):
    array = np.linspace(low, high, 64**3).reshape(64, 64, 64).astype(np.int16)
    with pytest.raises(LesionDecompError, match=reported):
        check_chest_ct(Volume.from_array(array, GRID))


def test_air_with_hardly_any_patient_is_refused():
    array = np.full((64, 64, 64), -1000, np.int16)
    array[0, 0, :40] = 40
    with pytest.raises(LesionDecompError, match=r"0\.015 % of voxels between .*at least 0.2 % soft tissue"):
        check_chest_ct(Volume.from_array(array, GRID))


@pytest.mark.parametrize(
    ("changes", "reported"),
    [
        ({"g0028e1054": "OD"}, "The DICOM header states that the values are not in HU."),
        ({"g0018e0050": "8"}, "Slices are 8 mm thick; beyond 5 mm small lesions are missed."),
        ({"g0018e0050": "1"}, "Slices 1 mm thick lie 3.99 mm apart: volumes miss what lies between them."),
    ],
)
def test_what_a_dicom_header_states_of_slices_is_warned_about(tmp_path, changes, reported):
    for path in series_files()[20:26]:
        copy_slice(path, tmp_path / path.name, **changes)
    _, source = read_volume(tmp_path)
    assert reported in source.warnings


@pytest.mark.parametrize("kind", [InputError, ModelError, OutputError, ConfigError])
def test_each_kind_of_error_is_one_and_travels_between_processes(kind):
    error = kind("Stage", "this", "that", "Do so.", remedy="overwrite")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, LesionDecompError) and type(copy) is kind
    assert (str(copy), copy.remedy) == (str(error), "overwrite")
