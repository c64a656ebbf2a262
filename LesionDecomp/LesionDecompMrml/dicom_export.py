"""A result as a DICOM segmentation (DICOM SEG), for a CT that Slicer loaded from its DICOM database."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import slicer
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.io.atomic import private_folder
from LesionDecompLib.io.dicom.seg import Algorithm, write_dicom_seg
from LesionDecompLib.io.readers import read_volume
from LesionDecompLib.measurement.segment_texts import segment_descriptions

from .ct_change import change_warning
from .input_nodes import world_matrix
from .result_export import measure
from .result_nodes import ResultNodes

STAGE = "Writing the DICOM segmentation"
INSTANCES = "DICOM.instanceUIDs"  # attribute that Slicer's DICOM module gives a volume
TOLERANCE_VOXELS = 0.02


def is_from_dicom(node) -> bool:
    """Whether a volume node was loaded through Slicer's DICOM module."""
    return bool((node.GetAttribute(INSTANCES) or "").split())


def write_segmentation(nodes: ResultNodes, path: str | Path) -> list[str]:
    """Write lungs and lesions of a result as ``path``, in the study of its CT.

    :return: names of the segments written.
    :raises LesionDecompError: the CT does not come from DICOM, its files are gone, or it no longer lies as they state;
        the result lacks its report; or whatever :func:`LesionDecompLib.io.dicom.seg.write_dicom_seg` raises.
    """
    if (change := change_warning(nodes)) is not None:
        raise LesionDecompError(STAGE, "a CT whose voxels have changed since the run", "the CT of the run", str(change))
    folder = private_folder(slicer.app.temporaryPath or None)
    try:
        _collect(_files(nodes.ct), folder)
        volume, _ = read_volume(folder, STAGE)
        lungs, lesions = (_on_grid(node, volume) for node in (nodes.lungs, nodes.lesions))
        lesion_algorithm, lung_algorithm = _algorithms(nodes)
        return write_dicom_seg(
            path,
            folder,
            volume,
            lungs,
            lesions,
            lesion_algorithm=lesion_algorithm,
            lung_algorithm=lung_algorithm,
            descriptions=segment_descriptions(measure(nodes).statistics),
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _files(ct) -> list[Path]:
    if not is_from_dicom(ct):
        found, expected = f"'{ct.GetName()}', which was not loaded from DICOM", "a CT loaded with the DICOM module"
        raise LesionDecompError(STAGE, found, expected, "Load the CT's DICOM series, and run on it.")
    database = getattr(slicer, "dicomDatabase", None)
    names = [database.fileForInstance(uid) if database else "" for uid in ct.GetAttribute(INSTANCES).split()]
    files = [Path(name) for name in names if name]
    if len(files) != len(names) or not all(file.is_file() for file in files):
        found = f"DICOM files of '{ct.GetName()}' that are gone from Slicer's database"
        raise LesionDecompError(STAGE, found, "the series it was loaded from", "Import the series again.")
    return files


def _collect(files: list[Path], folder: Path) -> None:
    """Put the series' files together: a database may keep them apart."""
    try:
        for n, file in enumerate(files):
            try:
                os.link(file, folder / f"{n:06d}.dcm")
            except OSError:  # another disk, or a file system without links
                shutil.copyfile(file, folder / f"{n:06d}.dcm")
    except OSError as error:
        found = f"a temporary folder that cannot be written ({error.strerror or error})"
        raise LesionDecompError(STAGE, found, "room for a copy of the series") from error


def _on_grid(node, volume) -> np.ndarray:
    """A labelmap's voxels in the order of the DICOM files; Slicer may have turned or mirrored axes.

    :return: ``(k, j, i)`` of ``volume``.
    """
    array = slicer.util.arrayFromVolume(node)
    # From an index of the files' grid to one of the node's.
    matrix = np.linalg.inv(world_matrix(node, STAGE)) @ volume.ijk_to_ras
    steps = np.rint(matrix[:3, :3])
    corner = np.array([*volume.shape[::-1]], float) - 1.0
    ends = [matrix @ (*end, 1.0) for end in (np.zeros(3), corner)]
    nearest = np.rint([end[:3] for end in ends])
    fits = np.abs(steps).sum(axis=0).tolist() == [1, 1, 1] and np.abs(steps).sum(axis=1).tolist() == [1, 1, 1]
    if not fits or max(np.abs(end[:3] - n).max() for end, n in zip(ends, nearest, strict=True)) > TOLERANCE_VOXELS:
        found = f"'{node.GetName()}', which no longer lies on the grid of its DICOM files"
        raise LesionDecompError(STAGE, found, "the grid it was loaded with", "Load the CT anew and run again.")
    axes = [int(np.flatnonzero(steps[:, axis])[0]) for axis in range(3)]  # node axis (i, j, k) of each file axis
    view = array.transpose([2 - axis for axis in reversed(axes)])
    backward = [steps[axes[axis], axis] < 0 for axis in reversed(range(3))]
    view = view[tuple(slice(None, None, -1 if turn else 1) for turn in backward)]
    if view.shape != volume.shape:
        raise LesionDecompError(STAGE, f"'{node.GetName()}' of another size than its DICOM files", "their size")
    return np.ascontiguousarray(view)


def _algorithms(nodes: ResultNodes) -> tuple[Algorithm, Algorithm | None]:
    """The models that found lesions and lungs, as the report names them; None where a lung mask was supplied."""
    try:
        models = json.loads(nodes.report.GetText())["models"]
        lesions, lungs = models["lesions"], models.get("lungs")
        return _named(lesions), None if lungs is None else _named(lungs)
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise LesionDecompError(STAGE, "a result without its report", "the report of a run", "Run again.") from error


def _named(model: dict[str, str]) -> Algorithm:
    return SimpleNamespace(name=model["name"], version=str(model.get("version", "")), sha256=model["sha256"])
