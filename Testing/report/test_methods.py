"""What the methods text promises: what was done, by the manifest, with sources, and nothing about whose CT it was."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from LesionDecompLib.measurement.definitions import measurement
from LesionDecompLib.measurement.live import LiveLesions
from LesionDecompLib.measurement.region_rows import RegionTallies
from LesionDecompLib.measurement.regions import GivenRegions
from LesionDecompLib.report.manifest import build_manifest
from LesionDecompLib.report.methods import methods_text
from segmented_case import segmented_sample

LOBES = ["lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right", "lung_upper_lobe_left"]


@pytest.fixture(scope="module")
def case(sample_folder):
    volume, result = segmented_sample(sample_folder, step=4)
    result.lesion_bundle = SimpleNamespace(
        name="a-model", version="1.0.0", task="lesions", sha256="ab" * 32, metadata_sha256="cd" * 32
    )
    return volume, result


def _with_lobes(volume, result) -> SimpleNamespace:
    """The same with five lobes, cut by height, and a region whose name is nobody's business."""
    labels = np.zeros(volume.shape, np.uint8)
    z = np.arange(volume.shape[0])[:, None, None] * np.ones(volume.shape)
    top = volume.shape[0] / 2
    for label, inside in enumerate(
        [(result.lungs == 1) & (z >= top + 5), (result.lungs == 1) & (z >= top) & (z < top + 5)], start=1
    ):
        labels[inside] = label
    labels[(result.lungs == 1) & (z < top)] = 3
    labels[(result.lungs == 2) & (z >= top)] = 4
    labels[(result.lungs == 2) & (z < top)] = 5
    labels[(result.lungs == 2) & (z == np.flatnonzero((result.lungs == 2).any(axis=(1, 2)))[-1])] = 6
    names = {**dict(enumerate([*LOBES, "lung_lower_lobe_left"], start=1)), 6: "Leopoldine"}
    given = GivenRegions(labels, names, "ef" * 32)
    view = volume.view
    live = LiveLesions.of(
        *(view.to_axial(a) for a in (volume.array, result.lungs, result.heat)), volume.voxel_volume_ml
    )
    regions = RegionTallies.of(live, view.to_axial(labels), given).at(live.at(0.4, 0.1))
    return SimpleNamespace(**{**vars(result), "regions": regions, "regions_sha256": given.sha256})


def test_text_states_versions_models_settings_definitions_and_sources(case):
    volume, result = case
    manifest = build_manifest(volume, result)
    text = methods_text(manifest)
    assert f"LesionDecomp {manifest['software']['version']}" in text
    assert "a-model 1.0.0 (SHA-256 of its weights " + "ab" * 32 in text
    assert "at least 0.4" in text and "smaller than 0.1 mL" in text
    assert "The lungs were those of a mask supplied by the user" in text
    assert measurement("involvement_percent").definition[1:] in text and "-300 HU" in text
    assert "arXiv:2103.00780" in text and "10.1186/s12879-021-06556-z" in text and "10.1148/radiol.2303030853" in text
    assert "10.1148/radiol.2020200370" not in text  # lobes were not given, nor scored
    # References are numbered in the order of their citation, and each is cited.
    body, _, references = text.partition("References\n")
    numbers = [line.split()[0] for line in references.splitlines()]
    assert numbers == [f"[{n}]" for n in range(1, len(numbers) + 1)]
    assert [body.index(number) for number in numbers] == sorted(body.index(number) for number in numbers)


def test_text_follows_the_manifest_and_says_nothing_about_the_patient(case):
    volume, result = case
    manifest = build_manifest(volume, _with_lobes(volume, result), parameters={"lung_labels": "10-14"})
    text = methods_text(manifest)
    assert "(labels 10-14 of it)" in text
    assert "Regions supplied by the user (5 lobes, 1 other regions)" in text
    assert "Severity score by lobes (of 25) was computed" in text and "10.1148/radiol.2020200370" in text
    assert "Leopoldine" not in text and "Surname" not in text
    assert manifest["input"]["sha256"] not in text and manifest["input"]["sha256"][:12] not in text
    other = methods_text({**manifest, "parameters": {**manifest["parameters"], "threshold": 0.55}})
    assert "at least 0.55" in other


def test_regions_that_do_not_meet_the_lungs_are_not_called_measured(case):
    volume, result = case
    view, beside = volume.view, (result.lungs == 0).astype(np.uint8)
    live = LiveLesions.of(
        *(view.to_axial(a) for a in (volume.array, result.lungs, result.heat)), volume.voxel_volume_ml
    )
    tallies = RegionTallies.of(live, view.to_axial(beside), GivenRegions(beside, {1: "liver"}, "ef" * 32))
    shown = {"regions": tallies.at(live.at(0.4, 0.1)), "regions_sha256": "ef" * 32}
    text = methods_text(build_manifest(volume, SimpleNamespace(**{**vars(result), **shown})))
    assert "supplied by the user ()" not in text and "Regions supplied" not in text
