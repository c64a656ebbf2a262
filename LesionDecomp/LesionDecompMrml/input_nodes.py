"""Volume nodes as the library's input: voxels, and where they lie in the world."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence

import numpy as np
import slicer
import vtk
from LesionDecompLib.ct.lattice import as_labels, beyond_warnings, labels_on_grid
from LesionDecompLib.ct.lung_names import lung_side
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import InputError, LesionDecompError
from LesionDecompLib.io.masks import LungMask
from vtk.util.numpy_support import vtk_to_numpy

READING = "Reading the input volume"
READING_MASK = "Reading the lung mask"


def world_matrix(node, stage: str = READING) -> np.ndarray:
    """Matrix from voxel index to the world, parent transforms included.

    :param node: a volume node.
    :param stage: for the error's text.
    :return: ``(4, 4)`` float64, (i, j, k) to RAS, mm.
    :raises LesionDecompError: the node lies under a transform that is not linear.
    """
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    ijk_to_world = slicer.util.arrayFromVTKMatrix(matrix)
    parent = node.GetParentTransformNode()
    if parent is None:
        return ijk_to_world
    if not parent.IsTransformToWorldLinear():
        raise LesionDecompError(
            stage,
            f"'{node.GetName()}' under the non-linear transform '{parent.GetName()}'",
            "a volume under linear transforms only",
            "Harden the transform on the volume (Transforms module) and run again.",
        )
    parent.GetMatrixTransformToWorld(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix) @ ijk_to_world


def volume_from_node(node, *, copy: bool = True) -> Volume:
    """A scalar volume node's voxels and its place in the world.

    :param node: a scalar volume node holding a CT in HU.
    :param copy: copy the voxels, so that nothing that happens in the scene reaches the volume; without, it sees the
        node's own, which must not change meanwhile.
    :raises LesionDecompError: no node, no voxels, a labelmap, several components, a non-linear transform, or anything
        that :meth:`LesionDecompLib.ct.volume.Volume.from_array` refuses.
    """
    _check_has_voxels(node, READING, "a scalar volume with a chest CT")
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise LesionDecompError(READING, f"'{node.GetName()}', a labelmap", "a scalar volume with a chest CT")
    components = node.GetImageData().GetNumberOfScalarComponents()
    if components != 1:
        raise LesionDecompError(
            READING, f"'{node.GetName()}' with {components} values in each voxel", "a scalar volume with a chest CT"
        )
    array = slicer.util.arrayFromVolume(node)
    return Volume.from_array(array.copy() if copy else array, world_matrix(node), node.GetName() or "")


def patient_word(ct) -> str:
    """A word that all CTs of one patient have, and which names nobody; empty where no patient is recorded."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(ct.GetScene())
    item = hierarchy.GetItemByDataNode(ct) if hierarchy is not None else 0
    constants = slicer.vtkMRMLSubjectHierarchyConstants
    patient = hierarchy.GetItemAncestorAtLevel(item, constants.GetDICOMLevelPatient()) if item else 0
    identity = hierarchy.GetItemAttribute(patient, constants.GetDICOMPatientIDAttributeName()) if patient else ""
    return f"patient-{hashlib.sha256(identity.encode()).hexdigest()[:12]}" if identity else ""


def lung_mask_from_node(mask, ct, segments: Sequence[str] | None = None) -> LungMask:
    """A lung mask on the CT's grid, with a warning where it reaches beyond the CT.

    :param mask: labelmap volume node on the CT's lattice, or a segmentation node of any geometry. Where a labelmap's
        color table calls labels lung, these are; without such names all of its labels are returned.
    :param ct: the CT's volume node.
    :param segments: IDs of a segmentation's segments; None for those that are called lung. A segment called right
        and one called left become 1 and 2.
    :return: labels; those of a labelmap are the node's own, which must not change meanwhile.
    :raises LesionDecompError: no voxels, no labelmap, one on another grid, or segments that are not there.
    """
    if mask is not None and mask.IsA("vtkMRMLSegmentationNode"):
        return _mask_from_segments(mask, ct, segments)
    _check_has_voxels(mask, READING_MASK, "a labelmap volume on the CT's grid, or a segmentation")
    labels = as_labels(slicer.util.arrayFromVolume(mask), READING_MASK)
    array, outside = labels_on_grid(
        labels, world_matrix(mask, READING_MASK), volume_from_node(ct, copy=False), READING_MASK
    )
    return LungMask(_lungs_by_color(mask, array), tuple(beyond_warnings(called(mask), outside)))


def called(node) -> str:
    """What warnings call the node of a labelmap or segmentation."""
    return f"the labelmap '{node.GetName()}'"


def _lungs_by_color(mask, array: np.ndarray) -> np.ndarray:
    """Of a labelmap whose color table calls labels lung those, as 1 right, 2 left (or 1 where no side is named)."""
    display = mask.GetDisplayNode()
    colors = display.GetColorNode() if display is not None else None
    present = [int(value) for value in np.unique(array) if value]
    names = {value: colors.GetColorName(value) or "" for value in present} if colors is not None else {}
    sides = {value: side for value, name in names.items() if (side := lung_side(name)) is not None}
    if not sides:
        return array
    table = np.zeros(max(present) + 1, np.uint8)
    for value, side in sides.items():
        table[value] = side if all(sides.values()) else 1
    return table[array]


def segments_of(segmentation) -> list[tuple[str, str]]:
    """ID and name of each segment, in order."""
    inside = segmentation.GetSegmentation()
    return [(i, inside.GetSegment(i).GetName() or "") for i in inside.GetSegmentIDs()]


def called_lung(segmentation) -> list[str]:
    """IDs of the segments that are called lung, in any language that :mod:`.lung_names` knows."""
    return [i for i, name in segments_of(segmentation) if lung_side(name) is not None]


def _mask_from_segments(segmentation, ct, segments: Sequence[str] | None) -> LungMask:
    names = dict(segments_of(segmentation))
    chosen = called_lung(segmentation) if segments is None else [i for i in segments if i in names]
    if not chosen and segments is None and names:
        raise InputError(
            READING_MASK,
            f"'{segmentation.GetName()}' with the segments {', '.join(list(names.values())[:12])}",
            "a segment that is called lung",
            "Name the lungs so, or choose the segments that are lung.",
            code="mask_without_lung",
        )
    if not chosen or (segments is not None and len(chosen) < len(segments)):
        raise LesionDecompError(
            READING_MASK, f"'{segmentation.GetName()}' without the segments asked for", "at least one segment", ""
        )
    labels = [lung_side(names[i]) or 0 for i in chosen]
    known = set(labels) == {1, 2}
    mask = np.zeros(slicer.util.arrayFromVolume(ct).shape, np.uint8)
    for segment_id, label in zip(chosen, labels, strict=True):
        inside = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, ct)
        if inside is not None:
            mask[inside != 0] = label if known else 1
    return LungMask(mask, tuple(beyond_warnings(called(segmentation), share_beyond(segmentation, chosen, ct))))


def share_beyond(segmentation, segments: Sequence[str], ct) -> float:
    """Share of the voxels of some segments, on their own grids, whose middle lies beyond the CT."""
    parent, matrix = segmentation.GetParentTransformNode(), vtk.vtkMatrix4x4()
    if parent is not None:
        if not parent.IsTransformToWorldLinear():
            return 0.0  # where they lie is not to be computed by one matrix
        parent.GetMatrixTransformToWorld(matrix)
    to_ct = np.linalg.inv(world_matrix(ct)) @ slicer.util.arrayFromVTKMatrix(matrix)
    voxels = np.zeros(2, np.int64)
    for segment_id in segments:
        image = slicer.vtkOrientedImageData()
        if segmentation.GetBinaryLabelmapRepresentation(segment_id, image):
            voxels += _voxels_beyond(image, to_ct, ct.GetImageData().GetDimensions())
    return float(voxels[1] / voxels[0]) if voxels[0] else 0.0


def _voxels_beyond(image, to_ct: np.ndarray, size: Sequence[int]) -> tuple[int, int]:
    """Labeled voxels of a segment's image, and how many of them lie beyond a volume of ``size`` (i, j, k) voxels.

    :param to_ct: ``(4, 4)``, from the image's mm to the volume's index.
    """
    scalars, extent, matrix = image.GetPointData().GetScalars(), image.GetExtent(), vtk.vtkMatrix4x4()
    if scalars is None:
        return 0, 0
    image.GetImageToWorldMatrix(matrix)
    to_ct = to_ct @ slicer.util.arrayFromVTKMatrix(matrix)
    labels = vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1])
    ends = [(low, high) for low, high in zip(extent[::2], extent[1::2], strict=True)]
    corners = np.array([[*corner, 1.0] for corner in itertools.product(*ends)])
    last = np.asarray(size)[:, None] - 0.5
    inside = (to_ct @ corners.T)[:3]
    count = int(np.count_nonzero(labels))
    if (inside >= -0.5).all() and (inside <= last).all():
        return count, 0
    beyond = 0
    for k, plane in enumerate(labels):  # a plane at a time: a copy of the places of all is large
        j, i = np.nonzero(plane)
        places = np.stack([i + extent[0], j + extent[2], np.full(len(i), k + extent[4]), np.ones(len(i))])
        index = (to_ct @ places)[:3]
        beyond += int(np.count_nonzero(((index < -0.5) | (index > last)).any(axis=0)))
    return count, beyond


def _check_has_voxels(node, stage: str, expected: str) -> None:
    if node is None:
        raise LesionDecompError(stage, "no volume", expected, "Choose a volume.")
    if not node.IsA("vtkMRMLScalarVolumeNode"):
        raise LesionDecompError(stage, f"'{node.GetName()}' of type {node.GetNodeTagName()}", expected)
    image = node.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None or image.GetNumberOfPoints() == 0:
        raise LesionDecompError(stage, f"'{node.GetName()}' without voxels", expected)
