"""What looks wrong about a CT is reported, on real CT spoiled as it is in practice; whole chests earn no remark."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from command_line import run_here, small_ct
from LesionDecompLib.ct.grid import AxialView
from LesionDecompLib.ct.plausibility import heat_warnings, input_warnings
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.io.masks import read_mask
from LesionDecompLib.io.readers import read_volume
from LesionDecompLib.models.bundle import ModelBundle, find_bundle
from LesionDecompLib.segmentation.lungs.given import lungs_from_mask


@pytest.fixture(scope="module")
def sample(sample_folder) -> Volume:
    """The bundled sample, every other pixel: a whole chest of 5 mm slices."""
    ct, _ = read_volume(sample_folder / "chest_ct_tumor.nrrd")
    return Volume.from_array(np.ascontiguousarray(ct.array[:, ::2, ::2]), ct.ijk_to_ras @ np.diag([2, 2, 1, 1.0]))


@pytest.fixture(scope="module")
def covid(data_folder) -> Volume:
    """A COVID-19 chest CT of 2 mm slices."""
    return read_volume(data_folder / "covid_ct_md" / "P001_ct.nii.gz")[0]


@pytest.fixture(scope="module")
def lctsc(data_folder) -> tuple[Volume, np.ndarray]:
    """A thoracic CT with its lungs, outlined by experts."""
    ct, _ = read_volume(data_folder / "lung_ct" / "LCTSC-Test-S1-101_ct.nii.gz")
    return ct, read_mask(data_folder / "lung_ct" / "LCTSC-Test-S1-101_lung.nii.gz", ct)


def of_values(change, ct: Volume) -> str:
    return " ".join(input_warnings(Volume.from_array(change(ct.array), ct.ijk_to_ras)))


def of_slices(ct: Volume, order) -> str:
    """Remarks on the axial slices in the given order, from inferior, at the distance they had."""
    view = AxialView.of(ct.shape, ct.ijk_to_ras)
    stack = np.ascontiguousarray(view.to_axial(ct.array)[order])
    return " ".join(input_warnings(Volume.from_array(stack, view.axial_to_ras)))


def of_lungs(ct: Volume, mask: np.ndarray, box=np.s_[:, :, :]) -> str:
    """Remarks on lungs, within a part of the axial stack."""
    view = AxialView.of(ct.shape, ct.ijk_to_ras)
    array, mask = (np.ascontiguousarray(view.to_axial(a)[box]) for a in (ct.array, mask))
    volume = Volume.from_array(array, view.axial_to_ras)
    return " ".join(lungs_from_mask(mask, volume)[1])


@pytest.mark.slow
def test_whole_chests_earn_no_remark(sample, covid, lctsc):
    assert input_warnings(sample) == input_warnings(covid) == input_warnings(lctsc[0]) == []
    assert of_lungs(*lctsc) == ""


class TestValues:
    def test_contrast_cut_off_by_a_window(self, sample):
        assert "cut off at 150 HU" in of_values(lambda hu: np.clip(hu, -1350, 150), sample)
        assert "cut off at -900 HU" in of_values(lambda hu: np.clip(hu, -900, 2000), sample)

    def test_a_picture_turned_into_hu(self, sample):
        reported = of_values(lambda hu: np.rint(np.clip((hu + 1350) / 1500, 0, 1) * 255) * (1500 / 255) - 1350, sample)
        assert "different values: it looks like a picture" in reported and "cut off at 150 HU" in reported

    @pytest.mark.parametrize("offset", [-150, 120, 300])
    def test_another_zero_than_water(self, sample, offset):
        reported = re.search(
            r"Air around the patient lies at (-\d+) HU", of_values(lambda hu: hu + np.int16(offset), sample)
        )
        assert reported and abs(int(reported[1]) - (-1000 + offset)) < 10

    def test_another_zero_where_the_patient_fills_the_slices(self, covid):
        inner = Volume.from_array(np.ascontiguousarray(covid.array[:, 40:-40, 60:-60]), covid.ijk_to_ras)
        assert of_values(lambda hu: hu, inner) == ""
        assert "The commonest soft tissue lies at" in of_values(lambda hu: hu + np.int16(120), inner)

    def test_another_scale_than_hu(self, sample):
        assert "check the rescaling to HU" in of_values(lambda hu: (hu * 1.25).astype(np.float32), sample)
        reported = of_values(lambda hu: (np.where(hu > 0, hu * 30.0, hu)).astype(np.float32), sample)
        assert "above 3100 HU: check the rescaling to HU" in reported

    def test_shifts_within_a_scanner_s_tolerance_are_none(self, sample, covid):
        for ct in (sample, covid):
            for offset in (-20, 20):
                assert of_values(lambda hu, offset=offset: hu + np.int16(offset), ct) == ""

    def test_padding_is_not_taken_for_air(self, sample):
        y, x = np.ogrid[-1 : 1 : sample.shape[1] * 1j, -1 : 1 : sample.shape[2] * 1j]
        assert of_values(lambda hu: np.where(x**2 + y**2 > 1, np.int16(-2048), hu), sample) == ""


class TestSlices:
    def test_missing_ones_make_the_image_jump(self, covid):
        n = covid.shape[0]
        reported = of_slices(covid, np.delete(np.arange(n), [70, 71, 72]))
        assert "jumps between the axial slices 70 and 71 (" in reported

    def test_in_another_order(self, covid):
        order = np.arange(covid.shape[0])
        order[[60, 90]] = order[[90, 60]]
        assert "jumps between the axial slices 60 and 61, 61 and 62, 90 and 91 and more" in of_slices(covid, order)

    def test_copies(self, covid):
        order = np.arange(covid.shape[0])
        order[80] = 79
        assert "1 axial slice is the same as the one below" in of_slices(covid, order)

    def test_empty_ones(self, covid):
        reported = of_values(
            lambda hu: np.where(np.isin(np.arange(len(hu)), (40, 41))[:, None, None], -1024, hu), covid
        )
        assert "2 axial slices are without an image" in reported

    def test_thick_ones(self, covid):
        view = AxialView.of(covid.shape, covid.ijk_to_ras)
        stack = np.ascontiguousarray(view.to_axial(covid.array)[::4])
        reported = input_warnings(Volume.from_array(stack, view.axial_to_ras @ np.diag([1, 1, 4, 1.0])))
        assert reported == ["Slices are 8.0 mm apart; beyond 5 mm small lesions are missed."]

    def test_coarse_pixels(self, sample):
        coarse = Volume.from_array(sample.array[:, ::3, ::3], sample.ijk_to_ras @ np.diag([3, 3, 1, 1.0]))
        assert "mm wide; beyond 3 mm" in " ".join(input_warnings(coarse))


class TestGeometry:
    def test_tilted_gantry(self, sample):
        matrix = sample.ijk_to_ras.copy()
        matrix[1, 2] += np.tan(np.radians(12)) * matrix[2, 2]
        reported = input_warnings(Volume(sample.array, matrix))
        assert reported == ["Gantry tilt: slices are sheared by 12.0°; the voxel grid follows them."]

    def test_scans_of_another_plane(self, covid):
        view = AxialView.of(covid.shape, covid.ijk_to_ras)
        stack = view.to_axial(covid.array)
        for axis, step in ((1, [1, 4, 1, 1.0]), (2, [4, 1, 1, 1.0])):
            thin = stack[:, :: int(step[1]), :: int(step[0])]
            reported = " ".join(input_warnings(Volume.from_array(thin, view.axial_to_ras @ np.diag(step))))
            assert "not acquired in axial slices" in reported, axis

    def test_part_of_a_chest(self, sample):
        part = Volume(sample.array[10:25], sample.ijk_to_ras)
        assert "mm high; whole lungs take more" in " ".join(input_warnings(part))


class TestLungs:
    @pytest.mark.slow
    def test_cut_off_above_and_below(self, lctsc):
        ct, mask = lctsc
        view = AxialView.of(ct.shape, ct.ijk_to_ras)
        held = np.flatnonzero(view.to_axial(mask).any(axis=(1, 2)))
        assert "cut off at the highest slice" in of_lungs(*lctsc, np.s_[: held[-1] - 20])
        assert "cut off at the lowest slice" in of_lungs(*lctsc, np.s_[held[0] + 30 :])

    @pytest.mark.slow
    @pytest.mark.parametrize(("side", "axis"), [("anterior", 1), ("posterior", 1), ("right", 2), ("left", 2)])
    def test_cut_off_at_the_sides(self, lctsc, side, axis):
        ct, mask = lctsc
        stack = AxialView.of(ct.shape, ct.ijk_to_ras).to_axial(mask)
        held = np.flatnonzero(stack.any(axis=tuple(a for a in range(3) if a != axis)))
        cut = [slice(None)] * 3
        cut[axis] = slice(held[0] + 15, None) if side in ("anterior", "right") else slice(None, held[-1] - 15)
        reported = of_lungs(*lctsc, tuple(cut))
        assert f"cut off at the {side} edge of the slices" in reported and reported.count("edge of the slices") == 1

    @pytest.mark.slow
    @pytest.mark.parametrize("padding", [-2048, -1024, 0])
    def test_cut_off_by_the_scanner_s_circle(self, lctsc, padding):
        ct, mask = lctsc
        held = np.argwhere(mask)
        (_, top, left), (_, bottom, right) = held.min(axis=0), held.max(axis=0)
        y, x = np.ogrid[: ct.shape[1], : ct.shape[2]]
        outside = (y - (top + bottom) / 2) ** 2 + (x - (left + right) / 2) ** 2 > (0.4 * (right - left)) ** 2
        hu = np.where(outside, np.int16(padding), ct.array)
        reported = of_lungs(Volume(hu, ct.ijk_to_ras), np.where(outside, 0, mask))
        assert "cut off by the scanner's field of view" in reported

    @pytest.mark.slow
    def test_volumes_and_sides_that_cannot_be(self, lctsc):
        ct, mask = lctsc
        labels, reported = lungs_from_mask(mask, ct)
        assert reported == []
        assert "No left lung was found." in of_lungs(ct, np.where(labels == 2, 0, labels) * 2)
        thinned = labels.copy()
        thinned[: len(thinned) // 2][thinned[: len(thinned) // 2] == 1] = 0
        thinned[:, : ct.shape[1] // 2][thinned[:, : ct.shape[1] // 2] == 1] = 0
        assert "The right lung is" in of_lungs(ct, thinned)
        for factor in (0.4, 2.2):
            scaled = Volume(ct.array, ct.ijk_to_ras @ np.diag([factor, factor, factor, 1]))
            assert "mL is usual in adults" in of_lungs(scaled, mask)


def test_heat_that_is_high_everywhere():
    usual = {"involvement_percent": 30.0, "lung_heat_mean": 0.25}
    assert heat_warnings(usual) == []
    assert "75 % of the lungs are called lesion" in heat_warnings({**usual, "involvement_percent": 75.0})[0]
    assert "Heat is high all over the lungs (mean 0.50)" in heat_warnings({**usual, "lung_heat_mean": 0.5})[0]


@pytest.mark.slow
def test_a_model_that_calls_everything_lesion_is_reported_of_beside_the_figures(tmp_path, capsys):
    ct, mask, _ = small_ct(tmp_path)
    shipped = find_bundle(None, "lesions")
    network = shipped.network()
    # P near 1 in every pixel of the lungs, as of a model that was trained on another window.
    network.lesion_head.bias[: network.stem**2] += 20.0
    heat = {"source": "gate", "smoothing_px": 2.0}
    ModelBundle.save(tmp_path / "hot", network, {**shipped.metadata, "name": "hot", "heat": heat})
    reported = {}
    for model in (shipped.path, tmp_path / "hot"):
        out = tmp_path / "out" / model.name
        done = run_here(
            capsys, "segment", ct, "--lung-mask", mask, "--model", model, "-o", out, "--device", "cpu", "--quiet"
        )
        assert done.status == 0
        with (out / "statistics.csv").open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        report = json.loads((out / "report.json").read_text("utf-8"))
        assert {row["Warnings"] for row in rows} == {" ".join(report["warnings"])}
        assert float(rows[0]["Lesion volume (mL)"]) > 0
        reported[model.name] = [warning for warning in report["warnings"] if "called lesion" in warning]
    assert reported[shipped.path.name] == []
    assert re.match(
        r"(9\d|100) % of the lungs are called lesion: check the CT's HU and the lung mask\.", *reported["hot"]
    )
