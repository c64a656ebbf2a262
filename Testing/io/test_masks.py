"""Lung masks and labelmaps of regions: what they hold is found by name or by number, and lies where it belongs."""

from __future__ import annotations

import builtins
import bz2
import gzip
import json
import struct

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from command_line import small_ct
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.io.label_names import names_in_nifti, names_of_table, segments_in_nrrd
from LesionDecompLib.io.masks import read_labels, read_lungs, read_mask
from LesionDecompLib.io.readers import write_image

LOBES = {
    10: "lung_upper_lobe_left",
    11: "lung_lower_lobe_left",
    12: "lung_upper_lobe_right",
    13: "lung_middle_lobe_right",
    14: "lung_lower_lobe_right",
}
ORGANS = {5: "liver", 92: "rib_left_1", **LOBES}


@pytest.fixture
def chest(tmp_path) -> tuple[Volume, np.ndarray]:
    """A small CT and its lungs, 0 / 1."""
    _, mask, ct = small_ct(tmp_path)
    return ct, read_mask(mask, ct)


def sides_of(lungs: np.ndarray) -> np.ndarray:
    """1 and 2 in the halves of the small CT's columns, right and left."""
    return lungs * np.where(np.arange(64) < 32, 1, 2).astype(np.uint8)


def organs_of(ct: Volume, lungs: np.ndarray) -> np.ndarray:
    """Labels as of TotalSegmentator: lobes, the rest of the body as liver, bone as rib."""
    upper = np.arange(len(lungs))[:, None, None] >= len(lungs) // 2
    sides = sides_of(lungs)
    lobes = np.select([(sides == 2) & upper, sides == 2, (sides == 1) & upper, sides == 1], [10, 11, 12, 14], 0)
    return np.select([lobes > 0, ct.array > 200, ct.array > -100], [lobes, 92, 5], 0).astype(np.uint8)


def write_segments(path, labels: np.ndarray, ct: Volume, names: dict[int, str]) -> None:
    """A segmentation as 3D Slicer saves it: names of the segments in the header."""
    write_image(path, labels, ct)
    header, voxels = path.read_bytes().split(b"\n\n", 1)
    lines = [
        f"Segment{n}_LabelValue:={value}\nSegment{n}_Layer:=0\nSegment{n}_Name:={name}"
        for n, (value, name) in enumerate(names.items())
    ]
    path.write_bytes(header + b"\n" + "\n".join(lines).encode() + b"\n\n" + voxels)


def write_named_nifti(path, labels: np.ndarray, ct: Volume, names: dict[int, str]) -> None:
    """A NIfTI file with a label table in an extension of its header, as TotalSegmentator writes."""
    image = sitk.GetImageFromArray(labels)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ ct.ijk_to_ras
    image.SetSpacing(ct.spacing.tolist())
    image.SetDirection((lps[:3, :3] / ct.spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    plain = path.with_suffix("")
    sitk.WriteImage(image, str(plain))
    data = plain.read_bytes()
    rows = "".join(f'<Label Key="{k}" Red="1" Alpha="1"><![CDATA[{name}]]></Label>' for k, name in names.items())
    text = f'<?xml version="1.0"?><CaretExtension><LabelTable>{rows}</LabelTable></CaretExtension>'.encode()
    size = -(-(len(text) + 8) // 16) * 16
    extension = struct.pack("<ii", size, 0) + text.ljust(size - 8, b"\0")
    head = bytearray(data[:348])
    struct.pack_into("<f", head, 108, 352 + size)
    path.write_bytes(gzip.compress(bytes(head) + b"\1\0\0\0" + extension + data[352:]))


class TestPlace:
    def test_a_mask_with_permuted_and_flipped_axes_lands_where_it_belongs(self, chest, tmp_path):
        ct, lungs = chest
        array, matrix = lungs[::-1].transpose(2, 1, 0), ct.ijk_to_ras.copy()
        matrix[:3, 3] += matrix[:3, 2] * (ct.shape[0] - 1)
        matrix[:, 2] *= -1
        write_image(tmp_path / "turned.nrrd", array, matrix[:, [2, 1, 0, 3]])
        np.testing.assert_array_equal(read_mask(tmp_path / "turned.nrrd", ct), lungs)

    @pytest.mark.parametrize("box", [np.s_[2:10, 5:60, 3:61], np.s_[:, 10:50, :], np.s_[3:4, :, :]])
    def test_a_cropped_mask_is_put_into_place(self, chest, tmp_path, box):
        ct, lungs = chest
        starts = [part.start or 0 for part in box]
        matrix = ct.ijk_to_ras.copy()
        matrix[:3, 3] += matrix[:3, :3] @ starts[::-1]
        write_image(tmp_path / "cropped.seg.nrrd", np.ascontiguousarray(lungs[box]), matrix)
        expected = np.zeros_like(lungs)
        expected[box] = lungs[box]
        np.testing.assert_array_equal(read_mask(tmp_path / "cropped.seg.nrrd", ct), expected)

    def test_a_cropped_mask_with_other_axes_too(self, chest, tmp_path):
        ct, lungs = chest
        box, matrix = np.s_[1:11, 4:60, 2:50], ct.ijk_to_ras.copy()
        matrix[:3, 3] += matrix[:3, :3] @ [2, 4, 1]
        matrix[:3, 3] += matrix[:3, 0] * (48 - 1)
        matrix[:, 0] *= -1
        write_image(tmp_path / "turned.nrrd", lungs[box][:, :, ::-1].transpose(1, 0, 2), matrix[:, [0, 2, 1, 3]])
        expected = np.zeros_like(lungs)
        expected[box] = lungs[box]
        np.testing.assert_array_equal(read_mask(tmp_path / "turned.nrrd", ct), expected)

    def test_what_lies_beyond_the_ct_is_left_out_with_a_warning(self, chest, tmp_path):
        ct, lungs = chest
        matrix = ct.ijk_to_ras.copy()
        matrix[:3, 3] += 4 * matrix[:3, 2]
        write_image(tmp_path / "higher.nrrd", lungs, matrix)
        mask = read_lungs(tmp_path / "higher.nrrd", ct)
        np.testing.assert_array_equal(mask.array[4:], lungs[:-4])
        assert not mask.array[:4].any()
        (warning,) = mask.warnings
        assert warning.code == "mask_beyond_ct"
        assert warning.value == pytest.approx(np.count_nonzero(lungs[-4:]) / np.count_nonzero(lungs))

    @pytest.mark.parametrize("step", [0.3, 0.5])
    def test_a_mask_between_the_ct_s_voxels_is_refused(self, chest, tmp_path, step):
        ct, lungs = chest
        moved = ct.ijk_to_ras.copy()
        moved[:3, 3] += step * moved[:3, 0]
        write_image(tmp_path / "moved.nrrd", lungs, moved)
        with pytest.raises(LesionDecompError, match=r"lies up to [12]\.\d+ mm beside the CT.*Resample") as error:
            read_mask(tmp_path / "moved.nrrd", ct)
        assert error.value.code == "mask_other_grid"

    def test_a_mask_of_other_voxels_is_refused_with_what_to_do(self, chest, tmp_path):
        ct, lungs = chest
        coarse = ct.ijk_to_ras.copy()
        coarse[:, :2] *= 2
        write_image(tmp_path / "coarse.nrrd", np.ascontiguousarray(lungs[:, ::2, ::2]), coarse)
        with pytest.raises(LesionDecompError, match=r"32×32×12 voxels of 8\.344×.*nearest neighbor") as error:
            read_mask(tmp_path / "coarse.nrrd", ct)
        assert error.value.code == "mask_other_grid"

    def test_a_mask_wholly_beside_the_ct_is_refused(self, chest, tmp_path):
        ct, lungs = chest
        far = ct.ijk_to_ras.copy()
        far[:3, 3] += 100 * far[:3, 0]
        write_image(tmp_path / "far.nrrd", lungs, far)
        with pytest.raises(LesionDecompError, match="lies beside the CT") as error:
            read_mask(tmp_path / "far.nrrd", ct)
        assert error.value.code == "mask_beside_ct"


class TestLabels:
    def test_sides_are_kept_and_one_label_of_any_number_is_lung(self, chest, tmp_path):
        ct, lungs = chest
        sides = sides_of(lungs)
        for stored, expected in (
            (sides, sides),
            (lungs * np.int16(1000), lungs),
            (lungs * np.float32(0.5), lungs),
            (lungs * np.uint8(2), 2 * lungs),
        ):
            write_image(tmp_path / "mask.nrrd", stored, ct)
            np.testing.assert_array_equal(read_mask(tmp_path / "mask.nrrd", ct), expected)

    @pytest.mark.parametrize("name", ["lungs.nrrd", "lungs.seg.nrrd", "lungs.nhdr", "lungs.nii.gz", "lungs.dcm"])
    def test_a_mask_that_cannot_be_opened_is_named_with_the_reason(self, chest, tmp_path, monkeypatch, name):
        ct, _ = chest
        (tmp_path / name).write_bytes(bytes(128) + b"DICM")
        opened = builtins.open

        def refused(file, *arguments, **options):
            if str(file) == str(tmp_path / name):
                raise PermissionError(13, "Permission denied", str(file))
            return opened(file, *arguments, **options)

        monkeypatch.setattr("builtins.open", refused)
        with pytest.raises(LesionDecompError, match=f"'{name}', which cannot be opened .Permission denied") as error:
            read_mask(tmp_path / name, ct)
        assert error.value.code == "cannot_be_opened"

    def test_an_empty_mask_is_refused(self, chest, tmp_path):
        ct, lungs = chest
        write_image(tmp_path / "empty.nrrd", 0 * lungs, ct)
        with pytest.raises(LesionDecompError, match="without a lung voxel") as error:
            read_mask(tmp_path / "empty.nrrd", ct)
        assert error.value.code == "mask_empty"
        assert not read_mask(tmp_path / "empty.nrrd", ct, may_be_empty=True).any()

    def test_organs_without_names_are_refused_by_their_numbers(self, chest, tmp_path):
        ct, lungs = chest
        write_image(tmp_path / "organs.nrrd", organs_of(ct, lungs), ct)
        with pytest.raises(LesionDecompError, match="the labels 5, 10, 11, 12, 14, 92;") as error:
            read_lungs(tmp_path / "organs.nrrd", ct)
        assert (error.value.code, error.value.remedy) == ("mask_labels", "lung_labels")
        chosen = read_lungs(tmp_path / "organs.nrrd", ct, range(10, 15)).array
        np.testing.assert_array_equal(chosen, lungs)
        with pytest.raises(LesionDecompError, match="one of the labels 20, 21"):
            read_lungs(tmp_path / "organs.nrrd", ct, (20, 21))

    def test_chosen_labels_1_and_2_are_the_sides(self, chest, tmp_path):
        ct, lungs = chest
        three = sides_of(lungs)
        three[ct.array > 100] = 3
        write_image(tmp_path / "three.nrrd", three, ct)
        np.testing.assert_array_equal(read_lungs(tmp_path / "three.nrrd", ct, (1, 2)).array, sides_of(lungs))

    @pytest.mark.parametrize("where", ["segments", "extension", "ctbl", "itk-snap", "csv", "json"])
    def test_lungs_are_found_by_name(self, chest, tmp_path, where):
        ct, lungs = chest
        organs = organs_of(ct, lungs)
        path = tmp_path / ("organs.seg.nrrd" if where == "segments" else "organs.nii.gz")
        if where == "segments":
            write_segments(path, organs, ct, ORGANS)
        else:
            write_named_nifti(path, organs, ct, ORGANS if where == "extension" else {})
        table = {
            "ctbl": ("organs.ctbl", "# Color\n" + "".join(f"{k} {v} 255 0 10 255\n" for k, v in ORGANS.items())),
            "itk-snap": ("organs.txt", "".join(f'{k}  255 0 10  1 1 1  "{v}"\n' for k, v in ORGANS.items())),
            "csv": ("organs_ColorTable.csv", "LabelValue,Name\n" + "".join(f"{k},{v}\n" for k, v in ORGANS.items())),
            "json": ("organs.json", json.dumps({"labels": {v: k for k, v in ORGANS.items()}})),
        }.get(where)
        if table is not None:
            (tmp_path / table[0]).write_text(table[1], "utf-8")
        np.testing.assert_array_equal(read_lungs(path, ct).array, sides_of(lungs))
        labels = read_labels(path, ct)
        np.testing.assert_array_equal(labels.array, organs)
        assert labels.names == ORGANS and labels.values == sorted(set(ORGANS) - {13})

    def test_names_in_a_file_are_read_however_it_is_packed(self, chest, tmp_path):
        ct, lungs = chest
        write_named_nifti(tmp_path / "organs.nii.gz", organs_of(ct, lungs), ct, ORGANS)
        content = gzip.decompress((tmp_path / "organs.nii.gz").read_bytes())
        (tmp_path / "organs.nii").write_bytes(content)
        (tmp_path / "organs.nii.bz2").write_bytes(bz2.compress(content))
        for name in ("organs.nii", "organs.nii.gz", "organs.nii.bz2"):
            assert read_labels(tmp_path / name, ct).names == ORGANS
            np.testing.assert_array_equal(read_lungs(tmp_path / name, ct).array, sides_of(lungs))

    def test_structures_none_of_which_is_called_lung_are_refused_by_their_names(self, chest, tmp_path):
        ct, lungs = chest
        write_segments(tmp_path / "segments.seg.nrrd", sides_of(lungs), ct, {1: "heart", 2: "Segment_2"})
        with pytest.raises(LesionDecompError, match=r"the structures 1 heart, 2 Segment_2;.*called lung") as error:
            read_lungs(tmp_path / "segments.seg.nrrd", ct)
        assert error.value.code == "mask_without_lung"
        assert read_lungs(tmp_path / "segments.seg.nrrd", ct, [2]).array.any()

    def test_a_named_left_lung_has_its_side_whatever_its_number(self, chest, tmp_path):
        ct, lungs = chest
        names = {1: "linke Lunge", 2: "rechte Lunge"}
        write_segments(tmp_path / "segments.seg.nrrd", sides_of(lungs), ct, names)
        np.testing.assert_array_equal(read_mask(tmp_path / "segments.seg.nrrd", ct), (3 - sides_of(lungs)) * lungs)

    def test_a_ct_is_no_mask(self, chest, tmp_path):
        ct, _ = chest
        for name, array in (("ct", ct.array), ("unsigned", ct.array - ct.array.min())):
            write_image(tmp_path / f"{name}.nrrd", array, ct)
            with pytest.raises(LesionDecompError, match="expected a labelmap") as error:
                read_mask(tmp_path / f"{name}.nrrd", ct)
            assert error.value.code == "mask_not_labels"

    def test_probabilities_are_no_mask(self, chest, tmp_path):
        ct, lungs = chest
        write_image(tmp_path / "soft.nrrd", lungs * np.linspace(0.1, 0.9, 64, dtype=np.float32), ct)
        with pytest.raises(LesionDecompError, match=r"fractions between 0 and 0\.86") as error:
            read_mask(tmp_path / "soft.nrrd", ct)
        assert error.value.code == "mask_not_labels"


class TestOverlappingStructures:
    def write_layers(self, path, layers: list[tuple[str, np.ndarray]], ct: Volume) -> None:
        """Segments of 3D Slicer that overlap: a layer each."""
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ ct.ijk_to_ras
        vectors = " ".join("({!r},{!r},{!r})".format(*map(float, lps[:3, n])) for n in range(3))
        sizes = " ".join(map(str, reversed(ct.shape)))
        lines = [
            "NRRD0004",
            "type: unsigned char",
            "dimension: 4",
            "space: left-posterior-superior",
            f"sizes: {len(layers)} {sizes}",
            f"space directions: none {vectors}",
            "kinds: list domain domain domain",
            "encoding: gzip",
            "space origin: ({!r},{!r},{!r})".format(*map(float, lps[:3, 3])),
        ]
        for n, (name, _) in enumerate(layers):
            lines += [f"Segment{n}_LabelValue:=1", f"Segment{n}_Layer:={n}", f"Segment{n}_Name:={name}"]
        voxels = np.stack([array for _, array in layers], axis=-1).astype(np.uint8)
        path.write_bytes("\n".join(lines).encode() + b"\n\n" + gzip.compress(voxels.tobytes()))

    def test_segments_in_layers_are_read_by_name_and_lesions_take_nothing_from_lungs(self, chest, tmp_path):
        ct, lungs = chest
        sides, dense = sides_of(lungs), (lungs > 0) & (ct.array > -700)
        layers = [("lesion", dense), ("left lung", sides == 2), ("right lung", sides == 1)]
        self.write_layers(tmp_path / "s.seg.nrrd", layers, ct)
        mask = read_lungs(tmp_path / "s.seg.nrrd", ct)
        np.testing.assert_array_equal(mask.array, sides)
        assert mask.warnings == ()
        labels = read_labels(tmp_path / "s.seg.nrrd", ct)
        assert labels.names == {1: "lesion", 2: "left lung", 3: "right lung"}
        np.testing.assert_array_equal(labels.array == 1, dense)
        (warning,) = labels.warnings
        assert warning.code == "structures_overlap" and warning.value == np.count_nonzero(dense)
        np.testing.assert_array_equal(read_lungs(tmp_path / "s.seg.nrrd", ct, [2]).array > 0, sides == 2)


class TestNames:
    def test_tables_of_other_programs(self):
        snap = '# ITK-SNAP\n  0  0  0  0   0  0  0  "Clear Label"\n  3  255  0  0   1  1  1  "left lung"\n'
        assert names_of_table(snap, ".txt") == {0: "Clear Label", 3: "left lung"}
        assert names_of_table("index\tname\n1\tLung R\n", ".tsv") == {1: "Lung R"}
        assert names_of_table('{"EchoTime": 1, "SeriesNumber": 2}', ".json") == {}
        assert names_of_table('{"1": "lung"}', ".json") == {1: "lung"}
        assert names_of_table("[[[", ".json") == {}
        assert names_of_table("1: lung\n2: heart\n", ".txt") == {1: "lung", 2: "heart"}

    def test_segments_of_old_files_have_a_layer_each(self):
        own = {"Segment0_Name": "left lung", "Segment1_Name": "right lung"}
        assert segments_in_nrrd(own) == [(1, 0, "left lung"), (1, 1, "right lung")]

    def test_a_file_that_is_no_nifti_has_no_names(self, tmp_path):
        for data in (b"", b"\x1f\x8b", b"x" * 1000, bytes(400)):
            (tmp_path / "x.nii.gz").write_bytes(data)
            assert names_in_nifti(tmp_path / "x.nii.gz") == {}
