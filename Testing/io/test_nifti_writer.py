"""NIfTI files that are written lie where the CT lies, for other programs as for ours."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import OutputError
from LesionDecompLib.io.nifti_writer import write_nifti
from LesionDecompLib.io.readers import read_stored

GRIDS = {
    "axial": np.diag([-0.75, -0.75, 2.5, 1.0]),
    "oblique": None,
    "left-handed": np.diag([0.75, -0.75, 2.5, 1.0]),
    "sheared": np.array([[-0.75, 0, 0, 10], [0, -0.75, 0.6, -20], [0, 0, 2.5, 30], [0, 0, 0, 1.0]]),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_array_and_grid_come_back(tmp_path, name, dtype):
    matrix = GRIDS[name]
    if matrix is None:
        matrix = np.eye(4)
        matrix[:3, :3] = np.array(sitk.VersorTransform((0.3, -0.5, 0.8), 0.4).GetMatrix()).reshape(3, 3) * (0.7, 0.8, 2)
        matrix[:3, 3] = (-100.5, 20.25, 1200)
    volume = Volume.from_array(np.zeros((4, 5, 6), np.int16), matrix)
    array = np.random.default_rng(3).random((4, 5, 6)).astype(np.float32)
    array = (array > 0.5).astype(dtype) if dtype == np.uint8 else array
    write_nifti(tmp_path / "a.nii.gz", array, volume)
    stored = read_stored(tmp_path / "a.nii.gz", "Reading")
    np.testing.assert_array_equal(stored.array, array)
    np.testing.assert_allclose(stored.ijk_to_ras, matrix, rtol=1e-6, atol=1e-4)
    assert [warning.code for warning in stored.warnings] == (["sheared_grid"] if name == "sheared" else [])
    image = nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(image.affine, matrix, rtol=1e-6, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), array)
    write_nifti(tmp_path / "b.nii.gz", array, volume)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_another_shape_or_type_is_refused(tmp_path):
    volume = Volume.from_array(np.zeros((4, 5, 6), np.int16), np.eye(4))
    for array in (np.zeros((4, 5, 5), np.uint8), np.zeros((4, 5, 6), np.int64)):
        with pytest.raises(OutputError):
            write_nifti(tmp_path / "a.nii.gz", array, volume)
    assert not list(tmp_path.iterdir())
