"""A DICOM segmentation of drawn boxes, written as the product writes its own."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from LesionDecompLib.io.dicom.seg import check_dicom_input, write_dicom_seg
from LesionDecompLib.io.dicom.seg_labels import read_dicom_seg
from LesionDecompLib.io.readers import read_volume
from pydicom import dcmread

MODEL = SimpleNamespace(name="drawn", version="1", sha256="ab" * 32)


def written(folder, path, series: str | None = None):
    """A segmentation of two boxes for lungs and a spot, as a data set."""
    volume, _ = read_volume(folder, series=series)
    lungs = np.zeros(volume.shape, np.uint8)
    lungs[2:9, 5:30, 4:14], lungs[2:9, 5:30, 20:32] = 1, 2
    lesions = np.zeros(volume.shape, np.uint8)
    lesions[4:6, 10:14, 6:9] = 1
    check_dicom_input(folder, series)
    write_dicom_seg(path, folder, volume, lungs, lesions, lesion_algorithm=MODEL, lung_algorithm=MODEL, series=series)
    read = read_dicom_seg(path)
    np.testing.assert_array_equal(read.array, lungs[2:9])  # the spot lies in a lung, which comes first
    assert list(read.names.values()) == ["right lung", "left lung", "lesion"]
    return dcmread(path)
