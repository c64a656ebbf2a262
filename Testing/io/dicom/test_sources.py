"""Where DICOM files come from: folders behind links, zip archives, single files, files without a preamble."""

from __future__ import annotations

import os
import zipfile

import numpy as np
import pytest
from dicom_phantom import drawn_hu, drawn_series, write_slices
from LesionDecompLib.cli.batch.finished import source_state
from LesionDecompLib.cli.batch.plan import plan_cases
from LesionDecompLib.cli.batch.search import search_folder
from LesionDecompLib.errors import InputError
from LesionDecompLib.io import archive
from LesionDecompLib.io.folders import files_below
from LesionDecompLib.io.readers import case_name, read_volume, write_image

OTHER = drawn_hu(2)


def assert_drawn(source, **options) -> None:
    np.testing.assert_array_equal(read_volume(source, **options)[0].array, drawn_hu())


@pytest.fixture
def linked(tmp_path):
    """A tree with links to a series beside it, to the tree itself, to its parent, and to nothing."""
    store = write_slices(tmp_path / "store" / "series", drawn_series())
    tree = tmp_path / "tree"
    tree.mkdir()
    try:
        (tree / "series").symlink_to(store, target_is_directory=True)
    except OSError:
        pytest.skip("no symbolic links here")
    (tree / "again").symlink_to(store, target_is_directory=True)
    (tree / "circle").symlink_to(tree, target_is_directory=True)
    (tree / "above").symlink_to(tmp_path, target_is_directory=True)
    (tree / "gone").symlink_to(tmp_path / "gone", target_is_directory=True)
    return tree


def test_links_are_followed_and_circles_of_them_end(linked, tmp_path):
    assert len(list(files_below(linked))) == len(drawn_hu())
    assert_drawn(linked)
    assert read_volume(linked)[1].warnings == ()
    assert source_state(linked)["files"] == len(drawn_hu())


def test_a_search_follows_links(linked, tmp_path):
    write_slices(linked / "own", drawn_series(OTHER, 2))
    found = search_folder(linked, tmp_path / "out")
    assert sorted(path.name for path in found.cases) == ["again", "own"]  # each folder once


def test_a_search_leaves_out_series_that_were_not_asked_for(tmp_path):
    for number in (1, 2):
        write_slices(tmp_path / f"p{number}" / "soft", drawn_series(series=10 * number, SeriesDescription="SOFT"))
        write_slices(tmp_path / f"p{number}" / "sharp", drawn_series(series=10 * number + 1, SeriesDescription="LUNG"))
    found = search_folder(tmp_path, tmp_path / "out", "lung")
    assert [path.relative_to(tmp_path).as_posix() for path in found.cases] == ["p1/sharp", "p2/sharp"]
    assert "2 × series that is not the one asked for (p1/soft, p2/soft)" in found.sentence(tmp_path)


def test_a_search_keeps_patients_under_one_series_uid_apart(tmp_path):
    write_slices(tmp_path / "p1", drawn_series())
    write_slices(tmp_path / "p2", drawn_series(OTHER, PatientID="D-2"))
    found = search_folder(tmp_path, tmp_path / "out")
    assert [path.name for path in found.cases] == ["p1", "p2"]


def test_a_series_in_a_folder_above_another_s_is_read_for_itself(tmp_path):
    root = tmp_path / "studies"
    thin, last = drawn_series(OTHER, 2, SliceThickness=1), drawn_series(drawn_hu(3), 3)
    for patient in ("p1", "p2"):
        write_slices(root / patient, drawn_series(PatientID=patient))
        write_slices(root / patient / "thin", [*thin])
        for data in thin:
            data.PatientID, data.SeriesInstanceUID = "p2", "1.2.3.2"
    write_slices(root / "p3", last)
    found = search_folder(root, tmp_path / "out")
    assert [path.relative_to(root).as_posix() for path in found.cases] == [
        "p1/IM001.dcm", "p1/thin", "p2/IM001.dcm", "p2/thin", "p3"
    ]  # fmt: skip
    assert found.sentence(root) == "Found 5 CTs in 'studies'."
    for case, hu in zip(found.cases, [drawn_hu(), OTHER, drawn_hu(), OTHER, drawn_hu(3)], strict=True):
        np.testing.assert_array_equal(read_volume(case)[0].array, hu)
    cases = plan_cases(found.cases, tmp_path / "out", dict.fromkeys(found.cases, root))
    assert [case.name for case in cases] == ["p1", "p1_thin", "p2", "p2_thin", "p3"]
    asked = search_folder(root, tmp_path / "out", "Drawn 1")
    assert [path.relative_to(root).as_posix() for path in asked.cases] == ["p1", "p2"]
    np.testing.assert_array_equal(read_volume(asked.cases[0], series="Drawn 1")[0].array, drawn_hu())


def test_a_file_stands_for_its_series_and_no_other(tmp_path):
    folder = write_slices(tmp_path / "ct", drawn_series(), "a")
    write_slices(folder, drawn_series(OTHER, 2, SliceThickness=1), "b")
    write_slices(folder / "below", drawn_series(OTHER, 3, SliceThickness=0.5))
    volume, info = read_volume(folder / "a005.dcm")
    np.testing.assert_array_equal(volume.array, drawn_hu())
    assert not info.warnings and volume.name == "a005"
    assert source_state(folder / "a005.dcm")["files"] == 2 * len(drawn_hu())
    assert case_name("x/IM1.dcm") == "IM1" and case_name("x/study.ZIP") == "study"


def test_a_file_that_is_no_slice_is_refused(tmp_path):
    folder = write_slices(tmp_path / "ct", drawn_series())
    (scout,) = drawn_series(OTHER[:1], 5, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_slices(folder, [scout], "scout")
    with pytest.raises(InputError) as error:
        read_volume(folder / "scout001.dcm")
    assert error.value.code == "only_localizers"


@pytest.mark.parametrize("explicit", [True, False])
def test_files_without_a_preamble_and_without_meta_information(tmp_path, explicit):
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    for number, data in enumerate(drawn_series()):
        if not explicit:
            data.remove_private_tags()
        stream = DicomBytesIO()
        stream.is_little_endian, stream.is_implicit_VR = True, not explicit
        data["PixelData"].VR = "OW"
        write_dataset(stream, data)
        (tmp_path / f"{number}").write_bytes(stream.getvalue())
    assert_drawn(tmp_path)


def zipped(path, folder, start: str = ""):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for source in sorted(folder.rglob("*")):
            file.write(source, f"{start}{source.relative_to(folder).as_posix()}")
    return path


def test_a_zip_archive_of_a_study(tmp_path):
    folder = write_slices(tmp_path / "study" / "DICOM", drawn_series())
    write_slices(folder, drawn_series(OTHER, 2, ConvolutionKernel="B80f"), "b")
    before = set(os.listdir(archive.private_folder().parent))
    path = zipped(tmp_path / "study.zip", tmp_path / "study")
    assert_drawn(path)
    assert read_volume(path)[1].warnings[0].code == "series_chosen"
    np.testing.assert_array_equal(read_volume(path, series="2")[0].array, OTHER)
    assert read_volume(path)[0].name == "study"
    left = {name for name in os.listdir(archive.private_folder().parent) if name.startswith("lesiondecomp-")}
    assert len(left - before) <= 1  # the one that was just made here


def test_a_zip_archive_of_one_image_file(tmp_path):
    (tmp_path / "files").mkdir()
    volume, _ = read_volume(write_slices(tmp_path / "ct", drawn_series()))
    write_image(tmp_path / "files" / "ct.nrrd", volume.array, volume)
    assert_drawn(zipped(tmp_path / "one.zip", tmp_path / "files"))
    write_image(tmp_path / "files" / "two.nrrd", volume.array, volume)
    with pytest.raises(InputError) as error:
        read_volume(zipped(tmp_path / "two.zip", tmp_path / "files"))
    assert error.value.code == "several_images_in_zip"


def test_zip_archives_that_will_not_do(tmp_path, monkeypatch):
    folder = write_slices(tmp_path / "ct", drawn_series())
    path = zipped(tmp_path / "ct.zip", folder)
    data = path.read_bytes()
    for number, broken in enumerate((data[: len(data) // 2], data[:200] + bytes(400) + data[600:], data[:4])):
        (tmp_path / f"{number}.zip").write_bytes(broken)
        with pytest.raises(InputError, match=r"damaged or truncated zip|no DICOM file"):
            read_volume(tmp_path / f"{number}.zip")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("nothing")
    with pytest.raises(InputError, match=r"no DICOM file among 1 files in 'text.zip'"):
        read_volume(zipped(tmp_path / "text.zip", tmp_path / "text"))
    monkeypatch.setattr(archive, "MAX_BYTES", 20_000)
    with pytest.raises(InputError) as error:
        read_volume(path)
    assert error.value.code == "zip_too_large"


def test_names_in_an_archive_lead_nowhere_else(tmp_path):
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in ("../out.txt", "/abs.txt", "a/../../out.txt", "C:\\out.txt", "..\\out.txt"):
            file.writestr(name, b"x")
        for source in sorted(write_slices(tmp_path / "ct", drawn_series()).iterdir()):
            file.write(source, f"deep/{source.name}")
    with archive.unpacked(path, "Reading") as folder:
        assert sorted({part.name for part in folder.iterdir()}) == ["deep"]
        assert not (folder.parent / "out.txt").exists()
    assert not folder.exists()
    assert_drawn(path)
