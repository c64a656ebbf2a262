"""Closed surfaces of a result's segments, made quickly: Slicer's own conversion takes ten seconds for two lungs.

The lungs, which are shown as glass, are sampled at about 2.5 mm; lesions keep the CT's grid. The surfaces stand where
Slicer keeps its own, and are replaced by it as soon as somebody edits the segments.
"""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from LesionDecompLib.ct.anatomy import LUNG_LESION, LUNGS, Structure
from vtk.util.numpy_support import numpy_to_vtk

from .result_nodes import ResultNodes

GLASS_MM = 2.5
LUNG_OPACITY = 0.25
SMOOTHING = 15  # passes of a windowed sinc filter; shrinks nothing
PASS_BAND = 0.1


def closed_surface_name() -> str:
    """Slicer's name of the representation."""
    return slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()


def has_surfaces(segmentation) -> bool:
    """Whether a segmentation node has closed surfaces."""
    return bool(segmentation.GetSegmentation().ContainsRepresentation(closed_surface_name()))


def make_surfaces(nodes: ResultNodes) -> None:
    """Give lungs and lesions of a result's segmentation closed surfaces, from its labelmaps."""
    lungs = slicer.util.arrayFromVolume(nodes.lungs)
    for lung in LUNGS:
        put_surface(nodes.segmentation, lung, surface_of(lungs == lung.label, nodes.ct, GLASS_MM))
    make_lesion_surface(nodes)


def make_lesion_surface(nodes: ResultNodes) -> None:
    """Make the surface of the lesions anew."""
    lesions = slicer.util.arrayFromVolume(nodes.lesions) != 0
    put_surface(nodes.segmentation, LUNG_LESION, surface_of(lesions, nodes.ct))


def kept_surfaces(segmentation) -> dict[str, vtk.vtkPolyData]:
    """The surfaces of a segmentation by segment ID, to be put back after its voxels were written."""
    inside, name = segmentation.GetSegmentation(), closed_surface_name()
    found = {i: inside.GetSegment(i).GetRepresentation(name) for i in inside.GetSegmentIDs()}
    return {segment_id: surface for segment_id, surface in found.items() if surface is not None}


def put_surface(segmentation, structure: Structure | str, surface: vtk.vtkPolyData) -> None:
    """Set the closed surface of a segment."""
    segment_id = structure if isinstance(structure, str) else structure.segment_id
    segment = segmentation.GetSegmentation().GetSegment(segment_id)
    if segment is not None:
        segment.AddRepresentation(closed_surface_name(), surface)


def surface_of(mask: np.ndarray, ct, sampled_mm: float = 0.0) -> vtk.vtkPolyData:
    """The surface of a mask, smoothed.

    :param mask: ``(k, j, i)`` bool on the CT's grid.
    :param ct: volume node; the surface lies as its voxels do, parent transforms aside.
    :param sampled_mm: sample about so coarsely; 0 keeps every voxel.
    :return: empty for an empty mask.
    """
    box = _box(mask)
    if box is None:
        return vtk.vtkPolyData()
    spacing = ct.GetSpacing()[::-1]
    steps = [max(1, int(sampled_mm // one)) for one in spacing]
    part = _shares(mask[box], steps)
    image = vtk.vtkImageData()
    image.SetDimensions(*reversed(part.shape))
    image.GetPointData().SetScalars(numpy_to_vtk(part.ravel(), deep=True))
    contour = vtk.vtkFlyingEdges3D()
    contour.SetInputData(image)
    contour.SetValue(0, 0.5)
    contour.ComputeNormalsOff()
    contour.ComputeGradientsOff()
    contour.ComputeScalarsOff()
    smooth = vtk.vtkWindowedSincPolyDataFilter()
    smooth.SetInputConnection(contour.GetOutputPort())
    smooth.SetNumberOfIterations(SMOOTHING)
    smooth.SetPassBand(PASS_BAND)
    smooth.NonManifoldSmoothingOn()
    smooth.NormalizeCoordinatesOn()
    return _placed(smooth, ct, [part.start for part in box], steps)


def _box(mask: np.ndarray) -> tuple[slice, slice, slice] | None:
    planes = np.flatnonzero(mask.reshape(len(mask), -1).any(axis=1))
    if not len(planes):
        return None
    part = mask[planes[0] : planes[-1] + 1]
    rows, columns = np.flatnonzero(part.any(axis=(0, 2))), np.flatnonzero(part.any(axis=(0, 1)))
    return tuple(slice(int(n[0]), int(n[-1]) + 1) for n in (planes, rows, columns))  # type: ignore[return-value]


def _shares(mask: np.ndarray, steps: list[int]) -> np.ndarray:
    """Share of each block of voxels that is inside, one empty block around: float32."""
    counts = [-(-n // step) for n, step in zip(mask.shape, steps, strict=True)]
    padded = np.zeros([n * step for n, step in zip(counts, steps, strict=True)], np.uint8)
    padded[tuple(slice(n) for n in mask.shape)] = mask
    blocks = padded.reshape(counts[0], steps[0], counts[1], steps[1], counts[2], steps[2])
    shares = np.zeros([n + 2 for n in counts], np.float32)
    shares[1:-1, 1:-1, 1:-1] = blocks.mean(axis=(1, 3, 5), dtype=np.float32)
    return shares


def _placed(source, ct, start: list[int], steps: list[int]) -> vtk.vtkPolyData:
    """From block indices to the CT's RAS, mm; normals point outward."""
    ijk_to_ras = vtk.vtkMatrix4x4()
    ct.GetIJKToRASMatrix(ijk_to_ras)
    to_ijk = np.diag([float(step) for step in reversed(steps)] + [1.0])
    # The middle of block n, counted with the empty one in front, lies here.
    to_ijk[:3, 3] = [
        first - step + (step - 1) / 2 for first, step in zip(reversed(start), reversed(steps), strict=True)
    ]
    matrix = slicer.util.arrayFromVTKMatrix(ijk_to_ras) @ to_ijk
    transform = vtk.vtkTransform()
    transform.SetMatrix(matrix.ravel())
    placed = vtk.vtkTransformPolyDataFilter()
    placed.SetTransform(transform)
    placed.SetInputConnection(source.GetOutputPort())
    turned = vtk.vtkReverseSense()  # a mirrored grid has turned its triangles inward
    turned.SetInputConnection(placed.GetOutputPort())
    mirrored = bool(np.linalg.det(matrix[:3, :3]) < 0)
    normals = vtk.vtkPolyDataNormals()
    normals.SplittingOff()
    normals.ConsistencyOff()
    normals.SetInputConnection((turned if mirrored else placed).GetOutputPort())
    normals.Update()
    surface = vtk.vtkPolyData()
    surface.ShallowCopy(normals.GetOutput())
    return surface
