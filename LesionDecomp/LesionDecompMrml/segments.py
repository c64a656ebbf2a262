"""Masks as segments of a segmentation: written with all that goes with it, or drawn quickly while a slider moves."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from LesionDecompLib.ct.anatomy import Structure
from LesionDecompLib.ct.grid import FINEST_MM
from vtk.util.numpy_support import vtk_to_numpy

SEGMENT_EDITOR = "SegmentEditor"  # tag of the node that Segment Editor keeps its choices in, one in each scene
DRAWN = "LesionDecomp.drawn"  # marks voxels of a segment that are this module's own


def write_segment(
    node, ct, structure: Structure, mask: np.ndarray, box: tuple[slice, slice, slice] | None = None
) -> None:
    """Make a segment hold a mask; closed surfaces that the segmentation has are made anew.

    :param mask: ``(k, j, i)``, in where not 0: of the CT's grid, or of the part of it that ``box`` names.
    """
    segmentation = node.GetSegmentation()
    if segmentation.GetSegment(structure.segment_id) is None:
        segmentation.AddEmptySegment(structure.segment_id, structure.name, structure.color)
        segment = segmentation.GetSegment(structure.segment_id)
        segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), structure.terminology)
    slicer.vtkSlicerSegmentationsModuleLogic.SetBinaryLabelmapToSegment(
        oriented_image(mask, ct, box),
        node,
        structure.segment_id,
        slicer.vtkSlicerSegmentationsModuleLogic.MODE_REPLACE,
    )


def labelmap_state(segment) -> tuple[int, ...]:
    """Changes whenever the voxels of a segment do, which its own time of modification need not; empty without any."""
    image = segment.GetRepresentation(slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName())
    if image is None:
        return ()
    scalars = image.GetPointData().GetScalars()
    return image.GetMTime(), scalars.GetMTime() if scalars is not None else 0


def move_segments(node, before: np.ndarray, now: np.ndarray) -> None:
    """Have the segments of a volume's segmentation lie where the volume lies, whose own matrix is another one now.

    What does not lie on the volume's former grid, as it was moved with the volume, stays.

    :param before, now: from index to RAS, ``(4, 4)``, mm.
    """
    inside, step = node.GetSegmentation(), now @ np.linalg.inv(before)
    name = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    for segment_id in inside.GetSegmentIDs():
        image = inside.GetSegment(segment_id).GetRepresentation(name)
        matrix = vtk.vtkMatrix4x4()
        if image is not None:
            image.GetImageToWorldMatrix(matrix)
            if not np.allclose(slicer.util.arrayFromVTKMatrix(matrix), before, rtol=0, atol=FINEST_MM):
                return
    transform = vtk.vtkTransform()
    transform.SetMatrix(slicer.util.vtkMatrixFromArray(step))
    node.ApplyTransform(transform)


def let_segments_overlap(scene) -> None:
    """Have Segment Editor paint one segment without cutting the others: a lesion is part of its lung.

    By default, painting a lung takes the lesions out that it covers, and painting a lesion takes it out of the lung.
    """
    tag, class_name = SEGMENT_EDITOR, "vtkMRMLSegmentEditorNode"
    node = scene.GetSingletonNode(tag, class_name)
    if node is None:  # made as Segment Editor makes it
        node = scene.CreateNodeByClass(class_name)
        if node is None:  # a scene outside of the application
            return
        node.UnRegister(None)
        node.SetSingletonTag(tag)
        node = scene.AddNode(node)
    node.SetOverwriteMode(node.OverwriteNone)


def draw_segment(node, ct, structure: Structure, mask: np.ndarray, box: tuple[slice, slice, slice]) -> bool:
    """Put a mask straight into a segment's own voxels: a tenth of the time of :func:`write_segment`.

    Surfaces are not made anew, and the voxels stay as large as the box; :func:`write_segment` sets both right.

    :param mask: ``(k, j, i)``, the part of the CT's grid that ``box`` names.
    :return: False, and nothing is done, where the segment shares its voxels with others.
    """
    segmentation = node.GetSegmentation()
    segment = segmentation.GetSegment(structure.segment_id)
    if segment is None:
        return False
    layer = segmentation.GetLayerIndex(structure.segment_id)
    if layer >= 0 and len(segmentation.GetSegmentIDsForLayer(layer)) > 1:
        return False
    name = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    image = segment.GetRepresentation(name)
    value = segment.GetLabelValue() if image is not None else 1
    if image is None or image.GetFieldData().GetArray(DRAWN) is None or image.GetExtent() != _extent(mask, box):
        image = oriented_image(mask, ct, box)
        mark = vtk.vtkUnsignedCharArray()
        mark.SetName(DRAWN)
        image.GetFieldData().AddArray(mark)
        segment.SetLabelValue(1)
        segment.AddRepresentation(name, image)
    else:
        np.multiply(mask != 0, value, out=_voxels(image, mask.shape), casting="unsafe")
    image.GetPointData().GetScalars().Modified()
    image.Modified()
    return True


def _extent(mask: np.ndarray, box: tuple[slice, slice, slice] | None) -> tuple[int, ...]:
    starts = [part.start for part in reversed(box)] if box is not None else [0, 0, 0]
    return tuple(n for start, size in zip(starts, reversed(mask.shape), strict=True) for n in (start, start + size - 1))


def _voxels(image, shape: tuple[int, int, int]) -> np.ndarray:
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)


def oriented_image(mask: np.ndarray, ct, box: tuple[slice, slice, slice] | None = None):
    """A mask as the segmentations logic takes it: ``(k, j, i)``, of the CT's grid or of the part that ``box`` names."""
    image = slicer.vtkOrientedImageData()
    image.SetExtent(_extent(mask, box))
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    matrix = vtk.vtkMatrix4x4()
    ct.GetIJKToRASMatrix(matrix)
    image.SetGeometryFromImageToWorldMatrix(matrix)
    np.not_equal(mask, 0, out=_voxels(image, mask.shape), casting="unsafe")
    return image
