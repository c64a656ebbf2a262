"""One CT in three formats, and with spacing as formats round it: its lungs and heat are the same, byte for byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_files import series_files
from LesionDecompLib.io.readers import read_volume
from LesionDecompLib.pipeline import Segmenter

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> dict[str, Path]:
    """The real DICOM series as it is, as NIfTI, as NRRD, and as NRRD whose spacing differs by less than 1e-6 mm."""
    folder = tmp_path_factory.mktemp("copies")
    series = series_files()[0].parent
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    image = reader.Execute()
    files = {"NIfTI": folder / "a.nii.gz", "NRRD": folder / "a.nrrd", "rounded": folder / "rounded.nrrd"}
    for name in ("NIfTI", "NRRD"):
        sitk.WriteImage(image, str(files[name]))
    image.SetSpacing(tuple(np.add(image.GetSpacing(), (9e-7, -9e-7, -9e-7))))
    sitk.WriteImage(image, str(files["rounded"]))
    return {"DICOM": series, **files}


def test_formats_and_rounded_spacing_change_no_voxel_of_lungs_and_heat(copies):
    segmenter = Segmenter(device="cpu")
    results = {name: segmenter.run(read_volume(path)[0]) for name, path in copies.items()}
    wanted = results.pop("DICOM")
    assert wanted.heat.any()
    for name, result in results.items():
        assert result.lungs.tobytes() == wanted.lungs.tobytes(), name
        assert result.heat.tobytes() == wanted.heat.tobytes(), name
