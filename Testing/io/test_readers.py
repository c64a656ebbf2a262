"""Files and DICOM folders: what is read is what is there, and outputs lie exactly on the input's grid."""

from __future__ import annotations

import gzip
import math
import re
import shutil
import struct

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from command_line import small_ct, snapshot
from dicom_files import SECRET_ID, SECRET_NAME, copy_slice, position, series_files
from hypothesis import given, settings
from hypothesis import strategies as st
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.io.dicom.grid import slice_grid
from LesionDecompLib.io.readers import case_name, read_volume, volume_identity, write_image
from repository import CHEST


@pytest.fixture
def ct(tmp_path) -> Volume:
    return small_ct(tmp_path)[2]


@pytest.fixture
def series(tmp_path):
    """Ten slices of a real series, in a folder of their own, and their paths."""
    folder = tmp_path / "series"
    folder.mkdir()
    paths = [folder / path.name for path in series_files()[30:40]]
    for source, path in zip(series_files()[30:40], paths, strict=True):
        copy_slice(source, path)  # so that a slice that is changed is still the same patient's
    return paths


def as_itk(volume: Volume) -> sitk.Image:
    image = sitk.GetImageFromArray(volume.array)
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.ijk_to_ras
    image.SetSpacing(volume.spacing.tolist())
    image.SetDirection((matrix[:3, :3] / volume.spacing).ravel().tolist())
    image.SetOrigin(matrix[:3, 3].tolist())
    return image


def geometry(path) -> tuple:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection()


class TestFormats:
    @pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd", "nhdr", "mha", "mhd"])
    def test_one_ct_reads_the_same_from_every_format(self, ct, tmp_path, ending):
        path = tmp_path / f"größe and space.{ending}"
        sitk.WriteImage(as_itk(ct), str(path), ending in ("nii.gz", "nrrd", "mha"))
        read, info = read_volume(path)
        assert read.array.dtype == np.int16
        np.testing.assert_array_equal(read.array, ct.array)
        np.testing.assert_allclose(read.ijk_to_ras, ct.ijk_to_ras, atol=1e-4)  # NIfTI holds float32
        assert info.voxels_sha256 == volume_identity(ct)[0]
        assert read.name == "größe and space" and info.format != "DICOM"

    def test_integral_values_stored_as_float_become_int16_and_keep_the_identity(self, ct, tmp_path):
        image = sitk.Cast(as_itk(ct), sitk.sitkFloat64)
        sitk.WriteImage(image, str(tmp_path / "float.nii.gz"))
        read, info = read_volume(tmp_path / "float.nii.gz")
        assert read.array.dtype == np.int16 and info.stored_type == "float64"
        assert info.voxels_sha256 == volume_identity(ct)[0]

    def test_fractions_of_a_hu_are_kept(self, ct, tmp_path):
        image = sitk.Cast(as_itk(ct), sitk.sitkFloat32) + 0.25
        sitk.WriteImage(image, str(tmp_path / "float.nrrd"))
        read, _ = read_volume(tmp_path / "float.nrrd")
        assert read.array.dtype == np.float32
        np.testing.assert_array_equal(read.array, ct.array.astype(np.float32) + 0.25)

    def test_a_fourth_axis_of_one_time_point_is_no_obstacle(self, ct, tmp_path):
        joined = sitk.JoinSeries(as_itk(ct))
        for name in ("one.nii.gz", "one.nrrd"):
            sitk.WriteImage(joined, str(tmp_path / name))
            read, _ = read_volume(tmp_path / name)
            np.testing.assert_array_equal(read.array, ct.array)
            np.testing.assert_allclose(read.ijk_to_ras, ct.ijk_to_ras, atol=1e-4)

    def test_nifti_scaling_and_byte_order_follow_the_header(self, ct, tmp_path):
        sitk.WriteImage(as_itk(ct), str(tmp_path / "plain.nii"))
        data = (tmp_path / "plain.nii").read_bytes()
        voxels = ((ct.array.astype(np.int32) + 1024) * 2).astype(">u2")
        header = swap_nifti_header(data[:348])
        header[70:72] = struct.pack(">h", 512)
        header[112:120] = struct.pack(">2f", 0.5, -1024.0)
        (tmp_path / "big.nii").write_bytes(bytes(header) + bytes(4) + voxels.tobytes())
        read, info = read_volume(tmp_path / "big.nii")
        np.testing.assert_array_equal(read.array, ct.array)
        np.testing.assert_allclose(read.ijk_to_ras, ct.ijk_to_ras, atol=1e-4)
        assert info.stored_type == "uint16"

    def test_nifti_is_unpacked_by_content_not_by_name(self, ct, tmp_path):
        sitk.WriteImage(as_itk(ct), str(tmp_path / "a.nii"))
        data = (tmp_path / "a.nii").read_bytes()
        (tmp_path / "PLAIN.NII.GZ").write_bytes(data)
        (tmp_path / "packed.nii").write_bytes(gzip.compress(data))
        for name in ("PLAIN.NII.GZ", "packed.nii"):
            read, info = read_volume(tmp_path / name)
            np.testing.assert_array_equal(read.array, ct.array)
            np.testing.assert_allclose(read.ijk_to_ras, ct.ijk_to_ras, atol=1e-4)
            assert not info.warnings

    def test_nifti_with_a_qform_alone_is_placed_by_it_whatever_the_file_is_called(self, ct, tmp_path):
        """ITK opens a packed file only under a name that states so; there the quaternion is read here."""
        turned = as_itk(ct)
        cosine, sine = math.cos(0.3), math.sin(0.3)
        for handed in (1.0, -1.0):
            turned.SetDirection([cosine, sine, 0, sine * handed, -cosine * handed, 0, 0, 0, 1])
            sitk.WriteImage(turned, str(tmp_path / "plain.nii"))
            data = bytearray((tmp_path / "plain.nii").read_bytes())
            assert struct.unpack_from("<h", data, 252)[0] > 0
            struct.pack_into("<h", data, 254, 0)  # no sform
            (tmp_path / "plain.nii").write_bytes(data)
            (tmp_path / "packed.nii").write_bytes(gzip.compress(bytes(data)))
            expected, read = (read_volume(tmp_path / name)[0] for name in ("plain.nii", "packed.nii"))
            np.testing.assert_allclose(read.ijk_to_ras, expected.ijk_to_ras, atol=1e-3)
            np.testing.assert_array_equal(read.array, expected.array)

    def test_sheared_nifti_keeps_its_shear(self, ct, tmp_path):
        sitk.WriteImage(as_itk(ct), str(tmp_path / "plain.nii"))
        data = bytearray((tmp_path / "plain.nii").read_bytes())
        sheared = ct.ijk_to_ras.copy()
        sheared[1, 2] += 0.7
        data[280:328] = struct.pack("<12f", *sheared[:3].ravel())
        for qform_code in (0, 1):
            struct.pack_into("<2h", data, 252, qform_code, 1)
            (tmp_path / "sheared.nii").write_bytes(data)
            read, info = read_volume(tmp_path / "sheared.nii")
            np.testing.assert_allclose(read.ijk_to_ras, sheared, atol=1e-4)
            assert any("sheared" in text for text in info.warnings)

    def test_nifti_without_orientation_is_warned_about(self, ct, tmp_path):
        sitk.WriteImage(as_itk(ct), str(tmp_path / "plain.nii"))
        data = bytearray((tmp_path / "plain.nii").read_bytes())
        struct.pack_into("<2h", data, 252, 0, 0)
        (tmp_path / "nowhere.nii").write_bytes(data)
        assert any("right and left" in text for text in read_volume(tmp_path / "nowhere.nii")[1].warnings)

    def test_nrrd_in_ras_is_placed_like_the_same_ct_in_lps(self, ct, tmp_path):
        write_image(tmp_path / "lps.nrrd", ct.array, ct)
        head, voxels = (tmp_path / "lps.nrrd").read_bytes().split(b"\n\n", 1)
        lines = head.decode().split("\n")
        rows = ct.ijk_to_ras[:3]
        swap = {
            "space:": "space: right-anterior-superior",
            "space directions:": "space directions: "
            + " ".join("({!r},{!r},{!r})".format(*map(float, rows[:, n])) for n in range(3)),
            "space origin:": "space origin: ({!r},{!r},{!r})".format(*map(float, rows[:, 3])),
        }
        lines = [next((new for old, new in swap.items() if line.startswith(old)), line) for line in lines]
        (tmp_path / "ras.nrrd").write_bytes("\n".join(lines).encode() + b"\n\n" + voxels)
        np.testing.assert_array_equal(read_volume(tmp_path / "ras.nrrd")[0].ijk_to_ras, ct.ijk_to_ras)

    def test_metaimage_fields_of_other_programs_are_passed_over(self, ct, tmp_path):
        write_image(tmp_path / "a.nrrd", ct.array, ct)
        image = sitk.ReadImage(str(tmp_path / "a.nrrd"))  # ITK copies fields such as NRRD_kinds[0] along
        image.SetMetaData("Köpf [1]", "ü = ü")
        for compressed in (False, True):
            sitk.WriteImage(image, str(tmp_path / "b.mha"), compressed)
            read, _ = read_volume(tmp_path / "b.mha")
            np.testing.assert_array_equal(read.array, ct.array)
            np.testing.assert_allclose(read.ijk_to_ras, ct.ijk_to_ras, atol=1e-9)

    def test_metaimage_of_oblique_axes_is_placed_where_itk_places_it(self, ct, tmp_path):
        image = as_itk(ct)
        image.SetDirection(sitk.VersorTransform((0.3, -0.5, 0.8), 0.7).GetMatrix())
        sitk.WriteImage(image, str(tmp_path / "oblique.mha"))
        read, _ = read_volume(tmp_path / "oblique.mha")
        for index in ((0, 0, 0), (5, 6, 7)):
            expected = np.array([-1, -1, 1]) * image.TransformIndexToPhysicalPoint(index)
            np.testing.assert_allclose((read.ijk_to_ras @ [*index, 1])[:3], expected, atol=1e-6)

    def test_nothing_is_printed_by_the_readers_underneath(self, ct, tmp_path, capfd):
        sitk.WriteImage(as_itk(ct), str(tmp_path / "cut.mha"), True)
        data = (tmp_path / "cut.mha").read_bytes()
        (tmp_path / "cut.mha").write_bytes(data[: len(data) // 2])
        with pytest.raises(LesionDecompError, match="damaged or truncated"):
            read_volume(tmp_path / "cut.mha")
        assert capfd.readouterr() == ("", "")

    def test_case_names_lose_the_ending_of_the_format_alone(self):
        names = {"a.b.nii.gz": "a.b", "ct.NRRD": "ct", "DICOM/1.2.840": "1.2.840", "x/": "x"}
        assert {path: case_name(path) for path in names} == names


def swap_nifti_header(header: bytes) -> bytearray:
    """A little-endian NIfTI-1 header with the bytes of the fields that matter in the other order."""
    swapped = bytearray(348)
    swapped[344:348] = b"n+1\0"
    swapped[123] = header[123]
    for offset, layout in (
        (0, "i"),
        (40, "8h"),
        (70, "h"),
        (72, "h"),
        (76, "8f"),
        (108, "f"),
        (252, "2h"),
        (256, "18f"),
    ):
        struct.pack_into(">" + layout, swapped, offset, *struct.unpack_from("<" + layout, header, offset))
    swapped[72:74] = struct.pack(">h", 16)
    return swapped


class TestGrid:
    @pytest.mark.slow
    def test_labelmaps_of_all_real_cts_lie_on_their_grid_bit_for_bit(self, data_folder, tmp_path):
        files = [*data_folder.glob("*/*_ct.nii.gz"), CHEST / "ct.nrrd"]
        assert len(files) > 15
        for path in files:
            volume, _ = read_volume(path)
            write_image(tmp_path / "labels.nrrd", np.zeros(volume.shape, np.uint8), volume)
            again, _ = read_mask_like(tmp_path / "labels.nrrd")
            np.testing.assert_array_equal(again, volume.ijk_to_ras)
            size, spacing, origin, direction = geometry(path)
            # ITK's own NRRD reader may round a unit direction in the last bit, whoever wrote the file.
            written = geometry(tmp_path / "labels.nrrd")
            assert written[:3] == (size, spacing, origin)
            np.testing.assert_allclose(written[3], direction, rtol=0, atol=2.3e-16)

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.floats(-3, 3, allow_subnormal=False), min_size=9, max_size=9),
        st.lists(st.floats(-1e4, 1e4, allow_subnormal=False), min_size=3, max_size=3),
    )
    def test_any_affine_reads_back_bit_for_bit(self, tmp_path_factory, directions, origin):
        matrix = np.eye(4)
        matrix[:3, :3] = np.array(directions).reshape(3, 3)
        matrix[:3, 3] = origin
        lengths = np.linalg.norm(matrix[:3, :3], axis=0)
        if (lengths < 0.01).any() or abs(np.linalg.det(matrix[:3, :3] / lengths)) < 0.02:
            return
        path = tmp_path_factory.mktemp("grid") / "oblique.nrrd"
        array = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
        write_image(path, array, matrix)
        read, _ = read_volume(path)
        np.testing.assert_array_equal(read.array, array)
        np.testing.assert_array_equal(read.ijk_to_ras, matrix)
        image = sitk.ReadImage(str(path))
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix
        for index in ((0, 0, 0), (3, 0, 0), (0, 2, 0), (0, 0, 1)):
            expected = (lps @ [*index, 1])[:3]
            np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), expected, atol=1e-9)

    def test_slicer_places_a_sheared_volume_where_it_belongs(self, ct, tmp_path):
        slicer = pytest.importorskip("slicer", reason="needs slicer-core")
        matrix = ct.ijk_to_ras.copy()
        matrix[1, 2] += 0.7
        write_image(tmp_path / "sheared.nrrd", ct.array, matrix)
        node = slicer.vtkMRMLScalarVolumeNode()
        storage = slicer.vtkMRMLNRRDStorageNode()
        storage.SetFileName(str(tmp_path / "sheared.nrrd"))
        assert storage.ReadData(node)
        point, ijk_to_ras = [0.0] * 4, node_matrix(node)
        for index in ([0, 0, 0, 1], [5, 6, 7, 1]):
            ijk_to_ras.MultiplyPoint(index, point)
            np.testing.assert_allclose(point, matrix @ index, atol=1e-6)

    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
    def test_views_are_written_as_they_look(self, ct, tmp_path, dtype):
        array = ct.array.astype(dtype)[::-1].transpose(2, 0, 1)
        write_image(tmp_path / "view.nrrd", array, ct.ijk_to_ras)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "view.nrrd"))), array)

    def test_same_array_same_bytes(self, ct, tmp_path):
        for name in ("a.nrrd", "b.nrrd"):
            write_image(tmp_path / name, ct.array, ct)
        assert (tmp_path / "a.nrrd").read_bytes() == (tmp_path / "b.nrrd").read_bytes()


def read_mask_like(path) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and voxels of a labelmap file, read as the library reads it."""
    from LesionDecompLib.io.nrrd import read_nrrd

    stored = read_nrrd(path, "Reading")
    return stored.ijk_to_ras, stored.array


def node_matrix(node):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix


class TestDicom:
    def test_series_equals_the_same_ct_in_nrrd(self):
        folder = CHEST
        dicom, info = read_volume(folder / "dicom")
        nrrd, other = read_volume(folder / "ct.nrrd")
        np.testing.assert_array_equal(dicom.array, nrrd.array)
        np.testing.assert_allclose(dicom.ijk_to_ras, nrrd.ijk_to_ras, atol=1e-3)  # positions have three digits
        assert info.format == "DICOM" and info.voxels_sha256 == other.voxels_sha256 and not info.warnings
        assert info.dicom["files"] == 79 and info.dicom["slice_thickness_mm"] == 3.98734

    def test_slices_are_sorted_by_place_not_by_name(self, series):
        expected, _ = read_volume(series[0].parent)
        names = np.random.default_rng(3).permutation(len(series))
        for path, name in zip(series, names, strict=True):
            path.rename(path.with_name(f"scan{name}"))
        shuffled, _ = read_volume(series[0].parent)
        np.testing.assert_array_equal(shuffled.array, expected.array)
        np.testing.assert_array_equal(shuffled.ijk_to_ras, expected.ijk_to_ras)

    def test_gantry_tilt_becomes_a_sheared_grid_and_a_warning(self, series, tmp_path):
        tilted = tmp_path / "tilted"
        tilted.mkdir()
        for path in series:
            x, y, z = position(path)
            y += (z - position(series[0])[2]) * math.tan(math.radians(12))
            copy_slice(path, tilted / path.name, g0020e0032=f"{x}\\{y:.6f}\\{z}")
        straight, (volume, info) = read_volume(series[0].parent)[0], read_volume(tilted)
        np.testing.assert_array_equal(volume.array, straight.array)
        shear = volume.ijk_to_ras[:3, 2] - straight.ijk_to_ras[:3, 2]
        np.testing.assert_allclose(shear, [0, -3.98733 * math.tan(math.radians(12)), 0], atol=1e-3)
        assert [text for text in info.warnings if "tilt" in text and "12.0" in text]

    @pytest.mark.parametrize(
        ("orientation", "step"),
        [
            ("0\\1\\0\\0\\0\\-1", (3.0, 0.0, 0.0)),  # sagittal
            ("1\\0\\0\\0\\0\\-1", (0.0, -3.0, 0.0)),  # coronal
            ("-1\\0\\0\\0\\1\\0", (0.0, 0.0, 3.0)),  # axial, seen from above
            ("0.8\\0.6\\0\\-0.6\\0.8\\0", (0.0, 0.0, 3.0)),  # turned
        ],
    )
    def test_other_orientations_are_placed_where_itk_places_them(self, series, tmp_path, orientation, step):
        other = tmp_path / "other"
        other.mkdir()
        for n, path in enumerate(series):
            x, y, z = (10 + n * value for value in step)
            copy_slice(path, other / path.name, g0020e0032=f"{x}\\{y}\\{z}", g0020e0037=orientation)
        read, info = read_volume(other)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(other)))
        image = reader.Execute()
        np.testing.assert_array_equal(read.array, sitk.GetArrayFromImage(image))
        for index in ((0, 0, 0), (5, 6, 7)):
            expected = np.array([-1, -1, 1]) * image.TransformIndexToPhysicalPoint(index)
            np.testing.assert_allclose((read.ijk_to_ras @ [*index, 1])[:3], expected, atol=1e-6)
        assert not info.warnings

    def test_rescaling_is_applied_slice_by_slice(self, series):
        expected, _ = read_volume(series[0].parent)
        data = series[4].read_bytes()
        at = data.index(b"\x28\x00\x52\x10\x02\0\0\0")  # rescale intercept, implicit VR
        series[4].write_bytes(data[: at + 8] + b"5 " + data[at + 10 :])
        read, _ = read_volume(series[0].parent)
        np.testing.assert_array_equal(np.delete(read.array, 4, 0), np.delete(expected.array, 4, 0))
        np.testing.assert_array_equal(read.array[4], expected.array[4] + 5)

    def test_a_missing_slice_is_interpolated_and_reported(self, series):
        expected, _ = read_volume(series[0].parent)
        series[5].unlink()
        read, info = read_volume(series[0].parent)
        assert re.search(r"a gap of 7\.9\d mm between slices 3\.99 mm apart \(1 missing\)", " ".join(info.warnings))
        np.testing.assert_allclose(read.ijk_to_ras, expected.ijk_to_ras, atol=1e-3)
        kept = np.delete(np.arange(len(series)), 5)
        np.testing.assert_array_equal(read.array[kept], expected.array[kept])
        between = (expected.array[4].astype(float) + expected.array[6]) / 2
        np.testing.assert_allclose(read.array[5], between, atol=0.51)
        assert info.dicom["interpolated_slices"] == 1 and info.dicom["files"] == len(series) - 1

    def test_missing_slices_of_a_tilted_scan_stay_on_the_tilted_line(self, series, tmp_path):
        tilted = tmp_path / "tilted"
        tilted.mkdir()
        for path in series:
            x, y, z = position(path)
            copy_slice(path, tilted / path.name, g0020e0032=f"{x}\\{y + 0.2 * z:.6f}\\{z}")
        whole, _ = read_volume(tilted)
        for number in (3, 7):
            (tilted / series[number].name).unlink()
        read, info = read_volume(tilted)
        assert any("2 gaps of up to" in text and "(2 missing)" in text for text in info.warnings)
        np.testing.assert_allclose(read.ijk_to_ras, whole.ijk_to_ras, atol=1e-3)
        kept = np.delete(np.arange(len(series)), [3, 7])
        np.testing.assert_array_equal(read.array[kept], whole.array[kept])

    def test_more_missing_than_can_be_interpolated_is_refused(self, series):
        for path in series[4:9]:
            path.unlink()
        with pytest.raises(LesionDecompError, match=r"a gap of 23\.9 mm between slices 3\.99 mm apart \(5 missing\)"):
            read_volume(series[0].parent)

    def test_unevenness_is_warned_about_and_interpolated_where_no_grid_fits(self, series):
        expected, _ = read_volume(series[0].parent)
        x, y, z = position(series[5])
        copy_slice(series[5], series[5], g0020e0032=f"{x}\\{y}\\{z + 0.3}")
        _, info = read_volume(series[0].parent)
        assert any("unevenly spaced" in text and "taken as" in text for text in info.warnings)
        copy_slice(series[5], series[5], g0020e0032=f"{x}\\{y}\\{z + 1.5}")
        read, info = read_volume(series[0].parent)
        assert any("unevenly spaced" in text and "interpolated" in text for text in info.warnings)
        np.testing.assert_allclose(read.ijk_to_ras, expected.ijk_to_ras, atol=1e-3)
        kept = np.delete(np.arange(len(series)), 5)
        np.testing.assert_allclose(read.array[kept], expected.array[kept], atol=2)

    def test_two_images_at_one_place_are_refused(self, series):
        x, y, z = position(series[5])
        copy_slice(series[6], series[6], g0020e0032=f"{x}\\{y}\\{z}")
        with pytest.raises(LesionDecompError, match="1 slice position with more than one image"):
            read_volume(series[0].parent)

    def test_a_file_copied_twice_counts_once(self, series):
        expected, _ = read_volume(series[0].parent)
        shutil.copyfile(series[5], series[5].with_name("copy of it.dcm"))
        read, info = read_volume(series[0].parent)
        np.testing.assert_array_equal(read.array, expected.array)
        assert any("1 duplicate" in text for text in info.warnings)

    def test_localizer_notes_and_reports_beside_the_series_are_left_out(self, series):
        expected, _ = read_volume(series[0].parent)
        x, y, _ = position(series[0])
        change = {"g0020e0032": f"{x}\\{y}\\900", "g0008e0018": "1.2.3.9", "g0008e0008": "ORIGINAL\\PRIMARY\\LOCALIZER"}
        copy_slice(series[0], series[0].with_name("scout.dcm"), **change)
        series[0].with_name("notes.txt").write_text("not an image")
        series[0].with_name("report.dcm").write_bytes(bytes(128) + b"DICM" + bytes(64))
        read, info = read_volume(series[0].parent)
        np.testing.assert_array_equal(read.array, expected.array)
        assert any("localizer" in text for text in info.warnings)
        assert any("without an image" in text for text in info.warnings)

    def test_series_in_a_subfolder_is_found(self, series, tmp_path):
        (tmp_path / "export" / "DICOM").mkdir(parents=True)
        series[0].parent.rename(tmp_path / "export" / "DICOM" / "SE0")
        assert read_volume(tmp_path / "export")[0].shape == (10, 64, 64)

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"g0008e0060": "MR"}, r"modality MR \(10 images\)"),
            ({"g0008e0008": "ORIGINAL\\PRIMARY\\LOCALIZER"}, r"only localizers \(10 images\)"),
        ],
    )
    def test_what_is_no_ct_volume_is_refused(self, series, tmp_path, change, sentence):
        other = tmp_path / "other"
        other.mkdir()
        for path in series:
            copy_slice(path, other / path.name, **change)
        with pytest.raises(LesionDecompError, match=sentence):
            read_volume(other)

    @pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 0, 0), (0.7, 0, 0, 0, 1, 0), (1, 0, 0, math.nan, 1, 0)])
    def test_an_impossible_orientation_is_refused(self, orientation):
        with pytest.raises(LesionDecompError, match="right angles"):
            slice_grid(np.array([[0.0, 0, 0], [0, 0, 1], [0, 0, 2]]), orientation, (1.0, 1.0), "Reading the CT")

    @pytest.mark.parametrize("spacing", [(), (0.0, 1.0), (-1.0, 1.0), (math.nan, 1.0)])
    def test_an_impossible_pixel_spacing_is_refused(self, spacing):
        with pytest.raises(LesionDecompError, match="spacing"):
            slice_grid(np.array([[0.0, 0, 0], [0, 0, 1], [0, 0, 2]]), (1, 0, 0, 0, 1, 0), spacing, "Reading the CT")

    def test_of_mixed_orientations_in_one_series_the_best_is_read_and_the_others_are_named(self, series):
        for path in series[:3]:
            copy_slice(path, path, g0020e0037="0\\1\\0\\0\\0\\-1")
        read, info = read_volume(series[0].parent)
        assert read.shape[0] == 7
        assert "7 slices of 3.98734 mm)" in info.warnings[0] and "3 slices of 3.98734 mm, sag" in info.warnings[0]

    @pytest.mark.parametrize("count", [1, 2])
    def test_one_or_two_slices_are_refused(self, series, count):
        for path in series[count:]:
            path.unlink()
        with pytest.raises(LesionDecompError, match=f"found {count} CT slice"):
            read_volume(series[0].parent)

    def test_a_truncated_slice_is_named(self, series):
        series[9].write_bytes(series[9].read_bytes()[:6000])
        with pytest.raises(LesionDecompError, match=f"damaged or truncated DICOM file '{series[9].name}'"):
            read_volume(series[0].parent)

    def test_a_single_file_of_a_series_stands_for_it(self, series):
        expected, _ = read_volume(series[0].parent)
        read, info = read_volume(series[3])
        np.testing.assert_array_equal(read.array, expected.array)
        assert not info.warnings and read.name == series[3].stem

    def test_nothing_about_the_patient_is_kept(self, series):
        for path in series:
            copy_slice(path, path)
        assert SECRET_ID.encode() in series[0].read_bytes()
        _, info = read_volume(series[0].parent)
        text = repr(info)
        assert not any(secret in text for secret in (*SECRET_NAME.split("^"), SECRET_ID, "20060101", str(series[0])))


class TestIdentity:
    def test_changes_with_a_voxel_and_with_the_grid_and_with_nothing_else(self, ct, tmp_path):
        write_image(tmp_path / "a.nrrd", ct.array, ct)
        write_image(tmp_path / "b.nrrd", ct.array, ct)
        a, b = read_volume(tmp_path / "a.nrrd")[1], read_volume(tmp_path / "b.nrrd")[1]
        assert (a.sha256, a.voxels_sha256) == (b.sha256, b.voxels_sha256) == tuple(reversed(volume_identity(ct)))
        array = ct.array.copy()
        array[3, 4, 5] += 1
        assert volume_identity(Volume.from_array(array, ct.ijk_to_ras))[0] != a.voxels_sha256
        moved = ct.ijk_to_ras.copy()
        moved[2, 3] += 0.001
        voxels, identity = volume_identity(Volume.from_array(ct.array, moved))
        assert voxels == a.voxels_sha256 and identity != a.sha256

    def test_last_bits_of_the_grid_change_nothing(self, ct):
        """As 3D Slicer leaves them, which keeps spacing and directions apart."""
        spacing = np.linalg.norm(ct.ijk_to_ras[:3, :3], axis=0)
        again = ct.ijk_to_ras.copy()
        again[:3, :3] = (ct.ijk_to_ras[:3, :3] / spacing) * (spacing * (1 + 1e-15))
        again[:3, 3] -= 1e-13
        assert (again != ct.ijk_to_ras).any()
        assert volume_identity(Volume.from_array(ct.array, again)) == volume_identity(ct)

    def test_reading_never_changes_the_input(self, ct, tmp_path):
        write_image(tmp_path / "a.nrrd", ct.array, ct)
        with gzip.open(tmp_path / "b.nii.gz", "wb") as stream:
            sitk.WriteImage(as_itk(ct), str(tmp_path / "b.nii"))
            stream.write((tmp_path / "b.nii").read_bytes())
        before = snapshot(tmp_path)
        for name in ("a.nrrd", "b.nii", "b.nii.gz"):
            read_volume(tmp_path / name)
        assert snapshot(tmp_path) == before
