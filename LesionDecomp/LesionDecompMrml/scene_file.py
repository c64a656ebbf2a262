"""The result of one case as a 3D Slicer scene: ``lesiondecomp segment --scene``.

Nothing of Slicer is imported with it: :func:`write_scene` imports the ``slicer`` package (the Qt-free ``slicer-core``
wheel, or Slicer's own) when it is called, and reports how to install it where it is missing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.io.atomic import writing_error
from LesionDecompLib.report.manifest import manifest_text

if TYPE_CHECKING:
    from LesionDecompLib.pipeline import SegmentResult

WRITING = "Writing the scene"


def check_scene_support() -> None:
    """Refuse early, before any work is done, where a scene cannot be written.

    :raises LesionDecompError: the ``slicer`` package is missing or broken.
    """
    try:
        import slicer  # an extra
    except ImportError as error:
        raise LesionDecompError(
            WRITING,
            f"no usable 'slicer' package ({error})",
            "slicer-core, which brings Slicer's scene and file formats",
            "Install it with: pip install lesiondecomp[headless]",
        ) from error
    if not hasattr(slicer, "vtkMRMLScene"):
        raise LesionDecompError(
            WRITING,
            "a 'slicer' package without the MRML scene",
            "slicer-core",
            "Install it with: pip install lesiondecomp[headless]",
        )


def write_scene(
    path: str | os.PathLike[str],
    volume: Volume,
    result: SegmentResult,
    *,
    manifest: Mapping[str, Any] | None = None,
) -> Path:
    """Write CT, heatmap overlay, labelmaps, segmentation, table and views as one ``.mrb`` file.

    Opening the file in Slicer shows the CT in a lung window with the heatmap over it, in three slice views that meet
    in the largest lesion area.

    :param path: where to write, ending in ``.mrb``; an existing file is replaced, but only by a complete one.
    :param volume: the CT.
    :param result: what the pipeline made of it, on the CT's grid.
    :param manifest: the run's report, kept in the scene as a text node.
    :return: the path written.
    :raises LesionDecompError: Slicer's package is missing, or the file could not be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".mrb":
        raise LesionDecompError(WRITING, f"the file name '{path.name}'", "a name ending in .mrb")
    check_scene_support()
    from .headless_scene import HeadlessScene  # not before: Slicer starts without it
    from .result_nodes import add_ct_node, write_result
    from .review import keep_review
    from .views import add_slice_views, show_result

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, so that the finished file is moved into place in one step.
        with (
            tempfile.TemporaryDirectory(dir=path.parent, prefix=".scene-") as folder,
            HeadlessScene(folder) as headless,
        ):
            ct = add_ct_node(headless.scene, volume)
            text = manifest_text(manifest) if manifest is not None else ""
            nodes = write_result(ct, result, report=text, with_segmentation=True)
            if result.review is not None:
                keep_review(nodes, result.review)
            add_slice_views(ct, headless.application_logic)
            show_result(nodes, set_window=True)
            written = Path(folder) / path.name
            if not headless.scene.WriteToMRB(str(written)) or not written.is_file():
                raise LesionDecompError(WRITING, f"an incomplete '{path.name}'", "a writable folder with space")
            os.replace(written, path)
    except OSError as error:
        raise writing_error(error, WRITING, path.name) from error
    return path
