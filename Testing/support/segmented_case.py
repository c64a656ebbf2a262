"""Segmented real CT, for tests of what comes after segmentation. No network takes part."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from LesionDecompLib.ct.grid import AxialView
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.io.masks import read_labels
from LesionDecompLib.io.readers import read_volume
from LesionDecompLib.measurement.live import LiveLesions
from LesionDecompLib.measurement.region_rows import RegionTallies
from LesionDecompLib.measurement.statistics import lesion_statistics
from LesionDecompLib.segmentation.lesions import lesion_labelmap
from scipy.ndimage import binary_closing, gaussian_filter
from skimage.measure import label
from skimage.morphology import disk


def segmented_sample(sample_folder: Path, step: int = 1) -> tuple[Volume, SimpleNamespace]:
    """The sample CT, each ``step``-th voxel of an axial slice, and a segmentation result of it.

    Lung is what is air inside the body, closed over vessels and a part of the tumor; heat is density, blurred.
    """
    ct, _ = read_volume(sample_folder / "chest_ct_tumor.nrrd")
    smooth = gaussian_filter(ct.array.astype(np.float32), (0, 2, 2))
    air = label(smooth < -500)
    sizes = np.bincount(air.ravel())
    sizes[np.unique(np.concatenate([air[:, [0, -1]].ravel(), air[:, :, [0, -1]].ravel()]))] = 0
    lungs = binary_closing(np.isin(air, np.flatnonzero(sizes > 5000)), disk(8)[None])
    return _thinned(ct, lungs, np.clip((smooth + 800) / 700, 0, 1), step)


def segmented_covid_case(data_folder: Path, step: int = 1) -> tuple[Volume, SimpleNamespace]:
    """Every ``step``-th voxel of an axial slice of a COVID-19 chest CT, and a segmentation result of it.

    The lungs are annotated, the heat is the annotated lesion mask blurred over about 4 mm.
    """
    folder = data_folder / "covid3d_medseg"
    ct, _ = read_volume(folder / "case4_ct.nii.gz")
    lungs, lesion = (read_labels(folder / f"case4_{name}.nii.gz", ct).array for name in ("lung", "lesion"))
    heat = np.clip(1.15 * gaussian_filter((lesion != 0).astype(np.float32), (0.7, 3, 3)), 0, 1)
    return _thinned(ct, lungs, heat, step)


def segmented(volume: Volume, lungs: np.ndarray, heat: np.ndarray, threshold: float) -> SimpleNamespace:
    """The result of segmenting a volume of given lungs (0 / 1) and heat; the left half is the left lung."""
    view = AxialView.of(volume.shape, volume.ijk_to_ras)
    labels = (lungs != 0).astype(np.uint8)
    columns = np.flatnonzero(view.to_axial(labels).any(axis=(0, 1)))
    if len(columns):
        left_half = view.to_axial(labels)[:, :, (columns[0] + columns[-1]) // 2 :]
        left_half[left_half > 0] = 2
    heat = np.where(labels > 0, heat, 0).astype(np.float32)
    lesions = lesion_labelmap(heat, labels, threshold, 0.1, volume.voxel_volume_ml)
    arrays = [view.to_axial(a) for a in (volume.array, labels, lesions, heat)]
    live = LiveLesions.of(arrays[0], arrays[1], arrays[3], volume.voxel_volume_ml)
    return SimpleNamespace(
        heat=heat,
        lungs=labels,
        lesions=lesions,
        statistics=lesion_statistics(*arrays, volume.voxel_volume_ml),
        threshold=threshold,
        min_volume_ml=0.1,
        device="CPU",
        precision={"lungs": "float32", "lesions": "float32"},
        engine={"lungs": "torch", "lesions": "torch"},
        warnings=[],
        timings_s={},
        lung_bundle=None,
        regions=RegionTallies.of(live).at(live.at(threshold, 0.1)),
        regions_sha256="",
        review=None,
        model=None,
        lesion_bundle=SimpleNamespace(name="a-model", version="1.0.0"),
    )


def _thinned(ct: Volume, lungs: np.ndarray, heat: np.ndarray, step: int) -> tuple[Volume, SimpleNamespace]:
    thin = np.s_[:, ::step, ::step]
    matrix = ct.ijk_to_ras @ np.diag([step, step, 1, 1])
    volume = Volume.from_array(np.ascontiguousarray(ct.array[thin]), matrix, "Surname^Forename")
    return volume, segmented(volume, np.ascontiguousarray(lungs[thin]), heat[thin], 0.4)
