"""A result of a CT from Slicer's DICOM database becomes a DICOM segmentation of the same study."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from dicom_files import series_files
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.io.readers import read_volume

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (pip install .[dicom])")
pytest.importorskip("highdicom", reason="highdicom is not installed (pip install .[dicom])")
pytest.importorskip("slicer", reason="slicer-core is not installed (pip install .[headless])")


@pytest.fixture
def nodes(mrml_scene, tmp_path, monkeypatch):
    """Lungs and a lesion on twelve slices of a series that the DICOM database knows."""
    import slicer

    folder = tmp_path / "series"
    folder.mkdir()
    files = {}
    for source in series_files()[30:42]:
        path = shutil.copy(source, folder)
        header = pydicom.dcmread(path, stop_before_pixels=True)
        files[str(header.SOPInstanceUID)] = str(path)
    monkeypatch.setattr(slicer, "dicomDatabase", SimpleNamespace(fileForInstance=files.get), raising=False)
    volume, _ = read_volume(folder)
    ct = slicer.util.addVolumeFromArray(volume.array, volume.ijk_to_ras, "CT")
    ct.SetAttribute("DICOM.instanceUIDs", " ".join(files))
    lungs, lesions = (np.zeros(volume.shape, np.uint8) for _ in range(2))
    lungs[:, 20:40, 10:25], lungs[:, 20:40, 35:50] = 1, 2
    lesions[3:6, 25:30, 12:16] = 1
    made = {
        name: slicer.util.addVolumeFromArray(array, volume.ijk_to_ras, name, "vtkMRMLLabelMapVolumeNode")
        for name, array in (("lungs", lungs), ("lesions", lesions))
    }
    heat = (lesions * 0.8).astype(np.float32)
    made["heatmap"] = slicer.util.addVolumeFromArray(heat, volume.ijk_to_ras, "heat")
    report = mrml_scene.AddNewNodeByClass("vtkMRMLTextNode", "report")
    report.SetText(json.dumps({"models": {"lesions": {"name": "mine", "version": "1.2", "sha256": "a" * 64}}}))
    return SimpleNamespace(ct=ct, report=report, files=files, **made)


def test_the_segmentation_holds_the_nodes_voxels_and_names_the_model(nodes, tmp_path):
    import slicer
    from LesionDecompMrml.dicom_export import write_segmentation

    segments = write_segmentation(nodes, tmp_path / "segmentation.dcm")
    assert len(segments) == 3
    written = pydicom.dcmread(tmp_path / "segmentation.dcm")
    source = pydicom.dcmread(next(iter(nodes.files.values())), stop_before_pixels=True)
    assert (written.Modality, written.StudyInstanceUID) == ("SEG", source.StudyInstanceUID)
    numbers = [frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
               for frame in written.PerFrameFunctionalGroupsSequence]  # fmt: skip
    voxels = [int(written.pixel_array[np.array(numbers) == n].sum()) for n in (1, 2, 3)]
    lungs = slicer.util.arrayFromVolume(nodes.lungs)
    lesions = slicer.util.arrayFromVolume(nodes.lesions)
    assert voxels == [int((lungs == 1).sum()), int((lungs == 2).sum()), int(lesions.sum())]
    assert "mine" in str(written.SegmentSequence[2])
    lesion_ml = int(lesions.sum()) * read_volume(tmp_path / "series")[0].voxel_volume_ml
    assert f"Lesion volume {lesion_ml:.2f} mL" in written.SegmentSequence[2].SegmentDescription


def test_a_ct_that_is_not_from_dicom_is_refused(nodes, tmp_path):
    from LesionDecompMrml.dicom_export import write_segmentation

    nodes.ct.RemoveAttribute("DICOM.instanceUIDs")
    with pytest.raises(LesionDecompError):
        write_segmentation(nodes, tmp_path / "segmentation.dcm")
    assert not (tmp_path / "segmentation.dcm").exists()


def test_a_result_without_its_report_is_refused(nodes, tmp_path):
    from LesionDecompMrml.dicom_export import write_segmentation

    nodes.report.SetText("")
    with pytest.raises(LesionDecompError) as reported:
        write_segmentation(nodes, tmp_path / "segmentation.dcm")
    assert reported.value.found == "a result without its report"
