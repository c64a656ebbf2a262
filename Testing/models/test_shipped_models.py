"""The shipped models do what the README states of them, on real CT."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.evaluation.volumes import dice
from LesionDecompLib.io.masks import read_labels
from LesionDecompLib.io.readers import read_volume
from LesionDecompLib.metrics.pixels import HeatCounts
from LesionDecompLib.models.bundle import find_bundle
from LesionDecompLib.pipeline import Segmenter
from LesionDecompLib.segmentation.smoothing import blur_inside
from LesionDecompLib.training.data.slices import SliceSet
from LesionDecompLib.training.heat_scale import slice_heat

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter(device="cpu")


def involvement(result, region=0):
    return result.statistics[region].values["involvement_percent"]


def test_the_sample_s_tumor_is_found_and_little_else(segmenter, sample_folder):
    volume, _ = read_volume(sample_folder / "chest_ct_tumor.nrrd")
    result = segmenter.run(volume)
    both, right, left = (row.values for row in result.statistics[:3])
    assert left["lesion_volume_ml"] > 25 and left["largest_lesion_ml"] > 25
    assert right["lesion_volume_ml"] < 15
    assert 3500 < both["lung_volume_ml"] < 5000


@pytest.mark.parametrize(("case", "least"), [("case2", 0.7), ("case4", 0.65), ("case8", 0.5)])
def test_covid_lesions_are_found_in_scans_of_other_hospitals(segmenter, data_folder, case, least):
    volume, _ = read_volume(data_folder / "covid3d_medseg" / f"{case}_ct.nii.gz")
    truth = read_labels(data_folder / "covid3d_medseg" / f"{case}_lesion.nii.gz", volume).array
    assert dice(segmenter.run(volume).lesions != 0, truth != 0) >= least


def test_a_normal_chest_stays_cold(segmenter, data_folder):
    volume, _ = read_volume(data_folder / "covid_ct_md" / "normal001_ct.nii.gz")
    every_other = Volume.from_array(volume.array[::2], volume.ijk_to_ras @ np.diag([1, 1, 2, 1.0]))
    assert involvement(segmenter.run(every_other)) < 1.0


def test_a_shifted_hu_scale_is_reported_and_changes_little(segmenter, sample_folder):
    volume, _ = read_volume(sample_folder / "chest_ct_tumor.nrrd")
    plain = segmenter.run(volume)
    shifted = Volume.from_array((volume.array + np.int16(70)).astype(np.int16), volume.ijk_to_ras)
    result = segmenter.run(shifted, lung_mask=plain.lungs)
    assert "lung_density" in [getattr(warning, "code", "") for warning in result.warnings]
    np.testing.assert_allclose(result.heat, plain.heat, atol=0.1)
    assert any("Healthy lung lies +" in text for text in result.warnings)
    assert not any("Healthy lung" in text for text in plain.warnings)


def test_lesions_lie_in_the_slices_that_a_radiologist_marked(segmenter, data_folder):
    """P001, COVID-19: slices with lesion by label hold nearly all of it; vessels of the others stay cold."""
    import csv

    volume, _ = read_volume(data_folder / "covid_ct_md" / "P001_ct.nii.gz")
    with open(data_folder / "covid_ct_md" / "slice_labels.csv", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["case"] == "P001"]
    infected = {int(row["nifti_k_index"]) for row in rows if row["infected"] == "1"}
    result = segmenter.run(volume)
    lesion = result.lesions.sum(axis=(1, 2))
    inside = sum(int(lesion[k]) for k in infected)
    assert inside / lesion.sum() > 0.9
    assert 1.0 < involvement(result) < 10.0


def test_heat_knows_more_than_a_blur(data_folder):
    """Average precision on every sixth val slice with lesion, against gray blurred inside the lung (sigma 4 px)."""
    bundle = find_bundle(None, "lesions")
    val = SliceSet.load(data_folder / "covid_slices", "val")
    chosen = np.flatnonzero(val.lesion)[::6]
    images = val.images[chosen]
    masks = val.masks("ann0")[::6]
    lung = images > 0
    heat = slice_heat(bundle.network(), bundle.heat_definition, images, torch.device("cpu"))
    x = torch.from_numpy(images).float().unsqueeze(1) / 255
    gray = blur_inside(x, torch.from_numpy(lung).float().unsqueeze(1), 4.0)[:, 0].numpy()
    scores = []
    for value in (heat, gray):
        counts = HeatCounts()
        counts.add(value[lung], masks[lung])
        scores.append(counts.average_precision())
    assert scores[0] > scores[1] + 0.15
