"""Volumes of the scene, with slices that somebody has marked, as what a training set is made from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from LesionDecompLib.ct.grid import AxialView
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.training.data.labels import STAGE, SliceLabel, SliceRange, labels_of_ranges, read_slice_labels

from .input_nodes import volume_from_node, world_matrix

LONGEST_NAME = 60


@dataclass(frozen=True, eq=False)
class MarkedSlices:
    """Slices ``first`` to ``last`` of a volume node, both included; axial, counted from 0 at the lowest.

    :param label: ``"lesion"`` or ``"normal"``.
    :param split: ``"train"``, ``"val"``, ``"test"``, or empty to have the volume dealt out.
    """

    node: Any
    first: int
    last: int
    label: str
    split: str = ""


def axial_slices(node) -> int:
    """Number of axial slices of a volume node, whatever its orientation.

    :raises LesionDecompError: no voxels, or a transform that is not linear.
    """
    return _view(node).shape[0]


def axial_slice_at(node, ras: Sequence[float]) -> int:
    """Number of the axial slice, counted from 0 at the lowest, that lies nearest to a place in the world (RAS, mm)."""
    view = _view(node)
    index = np.linalg.solve(view.axial_to_ras, [*ras, 1.0])[2]
    return int(np.clip(round(float(index)), 0, view.shape[0] - 1))


def training_input(marks: Sequence[MarkedSlices]) -> tuple[list[Volume], dict[str, list[SliceLabel]]]:
    """Volumes and labels of marked slices.

    :return: volumes under names fit for files, which see the nodes' own voxels, and labels by these names.
    :raises LesionDecompError: no mark, an impossible range, a slice marked twice, or a node that is not a chest CT.
    """
    names = _names([mark.node for mark in marks])
    ranges = []
    for mark in marks:
        count = axial_slices(mark.node)
        if mark.last >= count:
            found = f"slice {mark.last} of '{mark.node.GetName()}'"
            raise LesionDecompError(STAGE, found, f"slices 0 (lowest) to {count - 1} (highest)")
        ranges.append(SliceRange(names[mark.node.GetID()], mark.first, mark.last, mark.label, mark.split))
    labels = labels_of_ranges(ranges)
    nodes = {mark.node.GetID(): mark.node for mark in marks}
    return [replace(volume_from_node(node, copy=False), name=names[key]) for key, node in nodes.items()], labels


def training_input_of_csv(nodes: Sequence[Any], path: str | Path) -> tuple[list[Volume], dict[str, list[SliceLabel]]]:
    """Volumes and labels of a CSV file ``case,slice,label`` (and ``split``) whose cases are the nodes' names.

    :param nodes: volume nodes to choose from; those without a label are left out.
    :raises LesionDecompError: a file that does not read, or a case that no volume is called, or several.
    """
    read = read_slice_labels(path)
    names = _names(nodes)
    by_case: dict[str, Any] = {names[node.GetID()]: node for node in nodes}
    by_case |= {node.GetName(): node for node in nodes}
    called = Counter(node.GetName() for node in nodes)
    for case in read:
        if called[case] > 1:
            found = f"labels for '{case}', as {called[case]} volumes are called"
            raise LesionDecompError(STAGE, found, "one volume of that name", "Give each loaded CT a name of its own.")
    missing = [case for case in read if case not in by_case]
    if missing:
        listed = ", ".join(f"'{node.GetName()}'" for node in nodes) or "none"
        raise LesionDecompError(STAGE, f"labels for '{missing[0]}'", f"a loaded volume of that name ({listed})")
    labels = {names[by_case[case].GetID()]: items for case, items in read.items()}
    chosen = {names[node.GetID()]: node for node in nodes if names[node.GetID()] in labels}
    return [replace(volume_from_node(node, copy=False), name=name) for name, node in chosen.items()], labels


def _names(nodes: Sequence[Any]) -> Mapping[str, str]:
    """Names by node ID that every file system takes, no two alike."""
    names: dict[str, str] = {}
    for node in nodes:
        if node.GetID() in names:
            continue
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", node.GetName() or "").strip("-")[:LONGEST_NAME] or "volume"
        taken = {other.lower() for other in names.values()}
        number, free = 1, name
        while free.lower() in taken:
            number += 1
            free = f"{name}-{number}"
        names[node.GetID()] = free
    return names


def _view(node) -> AxialView:
    image = node.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        raise LesionDecompError(STAGE, f"'{node.GetName()}' without voxels", "a chest CT")
    return AxialView.of(slicer.util.arrayFromVolume(node).shape, world_matrix(node, STAGE))
