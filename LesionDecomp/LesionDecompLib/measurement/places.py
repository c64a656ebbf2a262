"""Where the lesions lie: each one's size and middle, and how much of each slice they fill."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..ct.grid import AxialView
from ..segmentation.components import Components
from .live import Lesions, LiveLesions
from .statistics import CELLS, REGIONS


@dataclass(frozen=True)
class LesionPlace:
    """A lesion: its volume, mL, a voxel of it near its middle, (k, j, i), and its number among the components."""

    volume_ml: float
    voxel: tuple[int, int, int]
    label: int = 0


def lesions_by_size(components: Components, voxel_volume_ml: float, most: int = 1000) -> list[LesionPlace]:
    """The lesions from the largest to the smallest.

    :param components: of the lesion labelmap, along the array's axes (k, j, i).
    :param voxel_volume_ml: mL.
    :param most: the smaller ones beyond so many are left out.

    A lesion's place is the voxel of it that is nearest to its centroid (in voxels), so that a view which jumps there
    shows the lesion even where it is hollow or bent.
    """
    n, lengths, labels = components.count, components.lengths, components.labels
    middles = np.stack([components.z, components.y, components.x + (lengths - 1) / 2]).astype(np.float64)
    sums = np.stack([np.bincount(labels, weights=middle * lengths, minlength=n) for middle in middles])
    centroids = sums / components.sizes
    # The nearest voxel of a run is its end, or the centroid's own column where that lies in the run.
    x = np.clip(np.rint(centroids[2][labels]), components.x, components.x + lengths - 1)
    distances = ((components.z - centroids[0][labels]) ** 2 + (components.y - centroids[1][labels]) ** 2) + (
        x - centroids[2][labels]
    ) ** 2
    order = np.lexsort((distances, labels))
    first = order[np.searchsorted(labels[order], np.arange(n))]
    by_size = np.argsort(-components.sizes, kind="stable")[:most]
    return [
        LesionPlace(
            float(components.sizes[label]) * voxel_volume_ml,
            (int(components.z[run]), int(components.y[run]), int(x[run])),
            int(label),
        )
        for label, run in zip(by_size, first[by_size], strict=True)
    ]


def area_along_body(components: Components, view: AxialView, voxel_volume_ml: float) -> tuple[np.ndarray, np.ndarray]:
    """Lesion area in each axial slice.

    :param components: of the lesion labelmap, along the array's axes (k, j, i).
    :param view: the array's axial view.
    :return: for each slice, from inferior to superior: its height (RAS superior, mm) and the lesion area in it, cm².
    """
    axis, slices = view.axes[0], view.shape[0]
    if axis == 2:  # runs lie across the slices
        counts = np.bincount(components.voxels()[2], minlength=slices)
    else:
        counts = np.bincount((components.z, components.y)[axis], weights=components.lengths, minlength=slices)
    if view.flips[0]:
        counts = counts[::-1]
    area_cm2 = voxel_volume_ml * 10.0 / view.slice_distance
    return view.height_mm(np.arange(slices)), counts * area_cm2


@dataclass(frozen=True)
class DescribedLesion:
    """A lesion for a reader's list.

    :param volume_ml: mL.
    :param voxel: of the axial stack, (z, y, x), in it and near its middle.
    :param mean_hu: mean HU.
    :param highest_heat: in [0, 1].
    :param region: lung and third that hold most of it.
    """

    volume_ml: float
    voxel: tuple[int, int, int]
    mean_hu: float
    highest_heat: float
    region: str


def describe_lesions(lesions: Lesions, live: LiveLesions, most: int = 1000) -> list[DescribedLesion]:
    """The lesions from the largest to the smallest, with what a reader wants to know of each.

    :param live: what they are lesions of.
    :param most: the smaller ones beyond so many are left out.
    """
    components, voxels = lesions.components, lesions.voxels
    count = components.count
    labels = np.repeat(components.labels, components.lengths)
    mean_hu = np.bincount(labels, weights=voxels.hu, minlength=count) / np.maximum(components.sizes, 1)
    highest = np.zeros(count, np.float32)
    np.maximum.at(highest, labels, voxels.heat)
    cells = np.bincount(labels.astype(np.intp) * CELLS + voxels.cells, minlength=count * CELLS).reshape(-1, CELLS)
    names = {held[0]: name for name, held in REGIONS.items() if len(held) == 1}
    order, shape = live.order, live.lungs.shape
    described = []
    for place in lesions_by_size(components, live.voxel_volume_ml, most):
        voxel = [0, 0, 0]
        for axis, step, n in zip(order.axes, order.steps, place.voxel, strict=True):
            voxel[axis] = shape[axis] - 1 - n if step < 0 else n
        label = place.label
        region = names[int(cells[label].argmax())]
        described.append(
            DescribedLesion(
                place.volume_ml, (voxel[0], voxel[1], voxel[2]), float(mean_hu[label]), float(highest[label]), region
            )
        )
    return described
