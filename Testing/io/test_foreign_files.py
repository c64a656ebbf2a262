"""NIfTI, NRRD and MetaImage files as other programs write them are read as others read them, with warnings."""

from __future__ import annotations

import bz2
import gzip
import locale
import struct
import zlib

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.io.readers import ReadInfo, read_volume

SPACING, ORIGIN = (0.75, 0.75, 2.5), (-20.5, 31.25, 40.0)
LPS = np.diag([*SPACING, 1.0])
LPS[:3, 3] = ORIGIN
RAS = np.diag([-1.0, -1.0, 1.0, 1.0]) @ LPS


@pytest.fixture
def hu() -> np.ndarray:
    """``(k, j, i)`` int16."""
    return np.random.default_rng(5).integers(-1000, 400, (6, 40, 36), np.int16)


def codes(info: ReadInfo) -> list[str]:
    return [warning.code for warning in info.warnings]


def same(path, hu: np.ndarray, matrix: np.ndarray = RAS) -> list[str]:
    """Assert that a file holds this CT; codes of the warnings."""
    volume, info = read_volume(path)
    np.testing.assert_array_equal(volume.array, hu)
    np.testing.assert_allclose(volume.ijk_to_ras, matrix, atol=1e-4)
    return codes(info)


def image_of(hu: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    return image


class TestNrrd:
    def header(self, hu: np.ndarray, *lines: str, **changed: str) -> bytes:
        fields = {
            "type": "short",
            "dimension": "3",
            "space": "left-posterior-superior",
            "sizes": " ".join(str(n) for n in reversed(hu.shape)),
            "space directions": "({},0,0) (0,{},0) (0,0,{})".format(*SPACING),
            "space origin": "({},{},{})".format(*ORIGIN),
            "endian": "little",
            "encoding": "raw",
        } | {name.replace("_", " "): value for name, value in changed.items()}
        return "\n".join(["NRRD0005", *(f"{k}: {v}" for k, v in fields.items() if v), *lines]).encode()

    @pytest.mark.parametrize("name", ["raw", "gzip", "gz", "bzip2", "bz2", "text", "ascii", "hex"])
    def test_every_encoding_of_the_format_is_read(self, hu, tmp_path, name):
        packed = {
            "raw": lambda data: data,
            "gz": gzip.compress,
            "bz": bz2.compress,
            "he": lambda data: data.hex("\n", 20).encode(),
            "te": lambda data: "\n".join(map(str, hu.ravel())).encode(),
        }
        pack = packed.get(name[:2].replace("as", "te"), packed.get(name))
        (tmp_path / "ct.nrrd").write_bytes(self.header(hu, encoding=name) + b"\n\n" + pack(hu.tobytes()))
        assert same(tmp_path / "ct.nrrd", hu) == []

    def test_an_encoding_that_is_none_is_named(self, hu, tmp_path):
        (tmp_path / "ct.nrrd").write_bytes(self.header(hu, encoding="zstd") + b"\n\n" + hu.tobytes())
        with pytest.raises(LesionDecompError, match="the NRRD encoding 'zstd'") as error:
            read_volume(tmp_path / "ct.nrrd")
        assert error.value.code == "encoding"

    @pytest.mark.parametrize("name", ["raw/ct.raw", "./ct.raw", "../beside.raw", "raw\\ct.raw"])
    def test_data_files_are_found_relative_to_the_header(self, hu, tmp_path, name):
        (tmp_path / "in" / "raw").mkdir(parents=True)
        (tmp_path / "in" / name.replace("\\", "/")).write_bytes(hu.tobytes())
        (tmp_path / "in" / "ct.nhdr").write_bytes(self.header(hu, data_file=name) + b"\n")
        assert same(tmp_path / "in" / "ct.nhdr", hu) == []

    def test_lists_and_numbered_files_are_put_together(self, hu, tmp_path):
        for k, plane in enumerate(hu):
            (tmp_path / f"s{k + 1:03d}.raw").write_bytes(plane.tobytes())
            (tmp_path / f"p{k}.gz").write_bytes(gzip.compress(plane.tobytes()))
        names = [f"s{k + 1:03d}.raw" for k in range(len(hu))]
        listed = self.header(hu, "data file: LIST", *names)
        (tmp_path / "list.nhdr").write_bytes(listed + b"\n")
        (tmp_path / "slabs.nhdr").write_bytes(self.header(hu, "data file: LIST 2", *names) + b"\n")
        (tmp_path / "numbered.nhdr").write_bytes(self.header(hu, data_file="s%03d.raw 1 6 1") + b"\n")
        (tmp_path / "packed.nhdr").write_bytes(self.header(hu, data_file="p%d.gz 0 5 1", encoding="gzip") + b"\n")
        for name in ("list", "slabs", "numbered", "packed"):
            assert same(tmp_path / f"{name}.nhdr", hu) == []
        (tmp_path / "missing.nhdr").write_bytes(self.header(hu, data_file="s%03d.raw 1 7 1") + b"\n")
        with pytest.raises(LesionDecompError, match=r"without its data file 's007\.raw'"):
            read_volume(tmp_path / "missing.nhdr")
        (tmp_path / "endless.nhdr").write_bytes(self.header(hu, data_file="s%03d.raw 1 999999999 1") + b"\n")
        with pytest.raises(LesionDecompError, match="names 0 data files"):
            read_volume(tmp_path / "endless.nhdr")

    def test_skipped_lines_and_bytes_lie_before_the_voxels(self, hu, tmp_path):
        (tmp_path / "ct.raw").write_bytes(b"first\nsecond\nabc" + hu.tobytes())
        (tmp_path / "a.nhdr").write_bytes(self.header(hu, data_file="ct.raw", line_skip="2", byte_skip="3") + b"\n")
        (tmp_path / "b.nhdr").write_bytes(self.header(hu, data_file="ct.raw", byte_skip="-1") + b"\n")
        assert same(tmp_path / "a.nhdr", hu) == same(tmp_path / "b.nhdr", hu) == []

    def test_decimal_commas_are_refused_where_they_cannot_be_told_from_others(self, hu, tmp_path):
        directions = "(0,75,0,0) (0,0,75,0) (0,0,2,5)"
        (tmp_path / "ct.nrrd").write_bytes(self.header(hu, space_directions=directions) + b"\n\n" + hu.tobytes())
        with pytest.raises(LesionDecompError, match=r"\(0,75,0,0\) with commas as decimal signs") as error:
            read_volume(tmp_path / "ct.nrrd")
        assert error.value.code == "decimal_commas"
        plain = self.header(hu, space="", space_directions="", space_origin="", spacings="0,75 0,75 2,5")
        (tmp_path / "ct.nrrd").write_bytes(plain + b"\n\n" + hu.tobytes())
        assert same(tmp_path / "ct.nrrd", hu, np.diag([-0.75, -0.75, 2.5, 1])) == ["no_orientation"]

    def test_a_country_with_decimal_commas_changes_nothing(self, hu, tmp_path):
        before = locale.setlocale(locale.LC_NUMERIC)
        for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "de_DE"):
            try:
                locale.setlocale(locale.LC_NUMERIC, name)
                break
            except locale.Error:
                continue
        else:
            pytest.skip("no locale with a decimal comma is installed")
        try:
            (tmp_path / "ct.nrrd").write_bytes(self.header(hu) + b"\n\n" + hu.tobytes())
            assert same(tmp_path / "ct.nrrd", hu) == []
        finally:
            locale.setlocale(locale.LC_NUMERIC, before)

    def test_a_header_without_spacing_or_orientation_is_warned_about(self, hu, tmp_path):
        plain = self.header(hu, space="", space_directions="", space_origin="")
        (tmp_path / "ct.nrrd").write_bytes(plain + b"\n\n" + hu.tobytes())
        assert same(tmp_path / "ct.nrrd", hu, np.diag([-1.0, -1, 1, 1])) == ["no_spacing", "no_orientation"]

    def test_bytes_behind_the_voxels_are_warned_about(self, hu, tmp_path):
        for name, data in (("raw", hu.tobytes() + b"more"), ("gzip", gzip.compress(hu.tobytes()) + b"more")):
            (tmp_path / "ct.nrrd").write_bytes(self.header(hu, encoding=name) + b"\n\n" + data)
            assert same(tmp_path / "ct.nrrd", hu) == ["bytes_left_over"]

    def test_a_gzip_stream_of_several_parts_is_one(self, hu, tmp_path):
        data = hu.tobytes()
        parts = gzip.compress(data[:5000]) + gzip.compress(data[5000:])
        (tmp_path / "ct.nrrd").write_bytes(self.header(hu, encoding="gzip") + b"\n\n" + parts)
        assert same(tmp_path / "ct.nrrd", hu) == []

    @pytest.mark.parametrize("name", ["gzip", "bzip2"])
    def test_a_packed_stream_that_is_cut_or_changed_is_refused(self, hu, tmp_path, name):
        packed = {"gzip": gzip.compress, "bzip2": bz2.compress}[name](hu.tobytes())
        spoiled = bytearray(packed)
        spoiled[len(packed) // 2] ^= 0x55
        for data in (packed[:-20], packed[:-3], bytes(spoiled)):
            (tmp_path / "ct.nrrd").write_bytes(self.header(hu, encoding=name) + b"\n\n" + data)
            with pytest.raises(LesionDecompError, match="damaged or truncated"):
                read_volume(tmp_path / "ct.nrrd")


class TestNifti:
    def patched(self, hu: np.ndarray, path, *patches: tuple) -> None:
        """Write a NIfTI file and go over its header: offset, layout, values."""
        plain = path.parent / "plain.nii"
        sitk.WriteImage(image_of(hu), str(plain))
        data = bytearray(plain.read_bytes())
        for offset, layout, *values in patches:
            struct.pack_into("<" + layout, data, offset, *values)
        pack = {".gz": gzip.compress, ".bz2": bz2.compress}.get(path.suffix, bytes)
        path.write_bytes(pack(bytes(data)))

    def test_a_negative_spacing_counts_by_its_amount(self, hu, tmp_path):
        self.patched(hu, tmp_path / "ct.nii.gz", (88, "f", -2.5))
        assert same(tmp_path / "ct.nii.gz", hu) == []
        self.patched(hu, tmp_path / "ct.nii.gz", (88, "f", -2.5), (254, "h", 0))
        assert same(tmp_path / "ct.nii.gz", hu) == []

    def test_without_a_qform_the_sform_counts_and_another_pixdim_is_warned_about(self, hu, tmp_path):
        self.patched(hu, tmp_path / "ct.nii.gz", (80, "3f", 1, 1, 1), (252, "2h", 0, 1))
        assert same(tmp_path / "ct.nii.gz", hu) == ["pixdim_differs"]
        (warning,) = read_volume(tmp_path / "ct.nii.gz")[1].warnings
        assert "1×1×1 mm" in warning and "0.75×0.75×2.5 mm" in warning

    @pytest.mark.parametrize(("moved", "warned"), [(0.02, []), (0.2, ["qform_sform_differ"])])
    @pytest.mark.parametrize("sform_code", [1, 2])
    def test_a_qform_and_sform_that_differ_are_warned_about(self, hu, tmp_path, moved, warned, sform_code):
        self.patched(hu, tmp_path / "ct.nii", (254, "h", sform_code), (292, "f", 20.5 + moved))
        volume, info = read_volume(tmp_path / "ct.nii")
        np.testing.assert_allclose(volume.ijk_to_ras, RAS, atol=moved + 1e-4)
        assert codes(info) == warned
        if warned:
            assert info.warnings[0].value == pytest.approx(moved, abs=1e-3) and info.warnings[0].limit == 0.05

    def test_an_axis_of_no_points_in_time_is_no_axis(self, hu, tmp_path):
        self.patched(hu, tmp_path / "ct.nii", (40, "h", 4), (48, "h", 0))
        assert same(tmp_path / "ct.nii", hu) == []

    def test_nifti_2_is_read(self, hu, tmp_path):
        nibabel = pytest.importorskip("nibabel")
        image = nibabel.Nifti2Image(np.ascontiguousarray(hu.transpose(2, 1, 0)), RAS)
        nibabel.save(image, tmp_path / "ct.nii.gz")
        assert gzip.decompress((tmp_path / "ct.nii.gz").read_bytes())[:4] == struct.pack("<i", 540)
        assert same(tmp_path / "ct.nii.gz", hu) == []

    def test_bzip2_is_unpacked(self, hu, tmp_path):
        self.patched(hu, tmp_path / "ct.nii.bz2")
        assert same(tmp_path / "ct.nii.bz2", hu) == []
        assert read_volume(tmp_path / "ct.nii.bz2")[0].name == "ct"

    @pytest.mark.parametrize("qform", [0, 1, 2])
    @pytest.mark.parametrize("sform", [0, 1, 2])
    def test_a_grid_does_not_depend_on_the_packing(self, hu, tmp_path, qform, sform):
        names = ("ct.nii", "ct.nii.gz", "ct.nii.bz2", "packed.nii")
        for name in names[:3]:
            # A qform and an sform turned against each other: which one is followed shows.
            self.patched(hu, tmp_path / name, (252, "2h", qform, sform), (280, "4f", 0.75, 0, 0, 3))
        (tmp_path / "packed.nii").write_bytes((tmp_path / "ct.nii.bz2").read_bytes())
        volumes = [read_volume(tmp_path / name) for name in names]
        for volume, info in volumes[1:]:
            np.testing.assert_array_equal(volume.ijk_to_ras, volumes[0][0].ijk_to_ras)
            assert info.warnings == volumes[0][1].warnings
        if not qform and not sform:
            np.testing.assert_array_equal(volumes[0][0].ijk_to_ras, np.diag([-0.75, -0.75, 2.5, 1]))

    def test_without_orientation_and_temporary_folder_the_axes_are_the_same(self, hu, tmp_path, monkeypatch):
        self.patched(hu, tmp_path / "ct.nii.bz2", (252, "2h", 0, 0))

        def none(*_args, **_kwargs):
            raise FileNotFoundError(2, "No usable temporary directory found in ['/none']")

        monkeypatch.setattr("tempfile.TemporaryDirectory", none)
        assert same(tmp_path / "ct.nii.bz2", hu, np.diag([-0.75, -0.75, 2.5, 1])) == ["no_orientation"]

    def test_bytes_behind_the_stream_or_the_voxels_are_warned_about(self, hu, tmp_path):
        self.patched(hu, tmp_path / "ct.nii.gz")
        data = (tmp_path / "ct.nii.gz").read_bytes()
        (tmp_path / "ct.nii.gz").write_bytes(data + b"left by a transfer")
        assert same(tmp_path / "ct.nii.gz", hu) == ["bytes_left_over"]
        (tmp_path / "zeros.nii.gz").write_bytes(data + bytes(512))  # as a tape's block is filled up
        assert same(tmp_path / "zeros.nii.gz", hu) == []
        (tmp_path / "ct.nii").write_bytes(gzip.decompress(data) + b"more")
        assert same(tmp_path / "ct.nii", hu) == ["bytes_left_over"]


class TestMetaImage:
    def header(self, hu: np.ndarray, **changed: str) -> bytes:
        fields: dict[str, str] = {
            "ObjectType": "Image",
            "NDims": "3",
            "BinaryData": "True",
            "BinaryDataByteOrderMSB": "False",
            "TransformMatrix": "1 0 0 0 1 0 0 0 1",
            "Offset": "{} {} {}".format(*ORIGIN),
            "ElementSpacing": "{} {} {}".format(*SPACING),
            "DimSize": " ".join(str(n) for n in reversed(hu.shape)),
            "ElementType": "MET_SHORT",
        } | {k: v for k, v in changed.items() if k != "ElementDataFile"}
        fields["ElementDataFile"] = changed.get("ElementDataFile", "LOCAL")  # which ends the header
        return "".join(f"{name} = {value}\n" for name, value in fields.items() if value).encode()

    def test_what_a_header_leaves_open_is_warned_about(self, hu, tmp_path):
        for changed, expected, matrix in (
            ({}, [], RAS),
            ({"TransformMatrix": ""}, ["no_orientation"], RAS),
            ({"TransformMatrix": "", "AnatomicalOrientation": "???"}, ["no_orientation"], RAS),
            ({"TransformMatrix": "", "AnatomicalOrientation": "RAI"}, [], RAS),
            ({"TransformMatrix": "", "AnatomicalOrientation": "LPI"}, [], RAS @ np.diag([-1.0, -1, 1, 1])),
            ({"ElementSpacing": ""}, ["no_spacing"], None),
            ({"ElementSpacing": "0,75 0,75 2,5"}, [], RAS),
        ):
            (tmp_path / "ct.mha").write_bytes(self.header(hu, **changed) + hu.tobytes())
            if matrix is None:
                matrix = RAS.copy()
                matrix[:3, :3] = np.diag([-1.0, -1, 1])
            assert same(tmp_path / "ct.mha", hu, matrix) == expected

    @pytest.mark.parametrize("dtype", [np.int32, np.int64])
    @pytest.mark.parametrize("packed", [False, True])
    def test_longs_have_four_bytes_or_eight_as_the_file_holds(self, hu, tmp_path, dtype, packed):
        data = hu.astype(dtype).tobytes()
        header = self.header(hu, ElementDataFile="", ElementType="MET_LONG", CompressedData=str(packed))
        voxels = zlib.compress(data) if packed else data
        (tmp_path / "ct.mha").write_bytes(header + b"ElementDataFile = LOCAL\n" + voxels)
        assert same(tmp_path / "ct.mha", hu) == []

    def test_lists_and_numbered_files_are_put_together(self, hu, tmp_path):
        (tmp_path / "raw").mkdir()
        for k, plane in enumerate(hu):
            (tmp_path / "raw" / f"s{k:02d}.raw").write_bytes(plane.tobytes())
        names = "\n".join(f"raw/s{k:02d}.raw" for k in range(len(hu))).encode()
        (tmp_path / "list.mhd").write_bytes(self.header(hu, ElementDataFile="LIST") + names)
        (tmp_path / "numbered.mhd").write_bytes(self.header(hu, ElementDataFile="raw/s%02d.raw 0 5 1"))
        assert same(tmp_path / "list.mhd", hu) == same(tmp_path / "numbered.mhd", hu) == []

    def test_voxels_as_text_are_read(self, hu, tmp_path):
        text = "\n".join(map(str, hu.ravel())).encode()
        (tmp_path / "ct.mha").write_bytes(self.header(hu, BinaryData="False") + text)
        assert same(tmp_path / "ct.mha", hu) == []
        (tmp_path / "ct.mha").write_bytes(self.header(hu, BinaryData="False") + text[:-500])
        with pytest.raises(LesionDecompError, match="damaged or truncated"):
            read_volume(tmp_path / "ct.mha")

    def test_a_long_line_is_no_trouble(self, hu, tmp_path):
        (tmp_path / "ct.mha").write_bytes(b"Comment = " + b"x" * 200_000 + b"\n" + self.header(hu) + hu.tobytes())
        assert same(tmp_path / "ct.mha", hu) == []


def test_files_are_read_where_no_temporary_folder_can_be_had(hu, tmp_path, monkeypatch):
    def none(*_args, **_kwargs):
        raise FileNotFoundError(2, "No usable temporary directory found in ['/none']")

    for name in ("ct.nrrd", "ct.nii.gz", "ct.mha"):
        sitk.WriteImage(image_of(hu), str(tmp_path / name), True)
    monkeypatch.setattr("tempfile.gettempdir", none)
    monkeypatch.setattr("tempfile.TemporaryFile", none)
    for name in ("ct.nrrd", "ct.nii.gz", "ct.mha"):
        assert same(tmp_path / name, hu) == []
