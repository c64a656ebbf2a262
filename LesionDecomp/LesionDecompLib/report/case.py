"""The files of one segmented case, written as a set: all of them, or none."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..ct.oddity import Oddity
from ..errors import LesionDecompError, OutputError
from ..io.atomic import check_writable, existing_error, staged_folder
from ..io.dicom.seg import check_dicom_seg_support, write_dicom_seg
from ..io.nifti_writer import write_nifti
from ..io.nrrd import write_image
from ..libraries import require
from ..measurement.region_rows import write_regions_csv
from ..measurement.segment_texts import segment_descriptions
from ..measurement.statistics import write_statistics_csv
from .manifest import build_manifest, file_sha256, manifest_text
from .methods import methods_text

if TYPE_CHECKING:
    from ..ct.volume import Volume
    from ..io.readers import ReadInfo
    from ..pipeline import SegmentResult

HEATMAP, LUNGS, LESIONS = "heatmap.nrrd", "lungs.nrrd", "lesions.nrrd"
STATISTICS, REPORT, OVERVIEW, SCENE = "statistics.csv", "report.json", "overview.png", "scene.mrb"
PAGE, DICOM_SEG, REGIONS, METHODS = "report.html", "segmentation.dcm", "regions.csv", "methods.txt"
HEALTHY = "healthy.nrrd"
NIFTI = {HEATMAP: "heatmap.nii.gz", LUNGS: "lungs.nii.gz", LESIONS: "lesions.nii.gz"}
ON_DEMAND = (OVERVIEW, SCENE, PAGE, DICOM_SEG, METHODS, HEALTHY, *NIFTI.values())
# What must be installed beside what segmenting itself needs.
NEEDED = {OVERVIEW: ("PIL",), PAGE: ("PIL", "jinja2"), **dict.fromkeys(NIFTI.values(), ("nibabel",))}
ALL_FILES = (HEATMAP, LUNGS, LESIONS, STATISTICS, REPORT, REGIONS, *ON_DEMAND)


SEG_NOT_WRITTEN = "dicom_seg_not_written"


def was_seg_asked_for(report: Mapping[str, Any]) -> bool:
    """Whether a run was to write a DICOM segmentation, by its report: it did, or states that it could not."""
    codes = (warning.get("code") for warning in report.get("warning_codes") or () if isinstance(warning, Mapping))
    return DICOM_SEG in report["outputs"] or SEG_NOT_WRITTEN in codes


class SceneWriter(Protocol):
    """What writes a result as a 3D Slicer scene; the caller brings it, since it needs Slicer's own library."""

    def check_scene_support(self) -> None:
        """Refuse where no scene can be written.

        :raises LesionDecompError: what it needs is not installed.
        """

    def write_scene(
        self,
        path: str | os.PathLike[str],
        volume: Volume,
        result: SegmentResult,
        *,
        manifest: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write CT and result as one ``.mrb`` file, whole or not at all; return its path."""


def check_case_folder(
    folder: str | Path, files: Collection[str] = (), scene: SceneWriter | None = None, *, overwrite: bool = False
) -> None:
    """Refuse, before any work is done, what :func:`write_case` would refuse after it.

    :param files: names of those that are asked for.
    :raises LesionDecompError: earlier results without ``overwrite``, a folder that can't be written to, or a file asked
        for that cannot be made here.
    """
    folder = Path(folder)
    taken = [name for name in ALL_FILES if (folder / name).exists()]
    if taken and not overwrite:
        raise existing_error("Opening the output folder", folder, taken)
    check_writable(folder)
    check_support(files, scene)


def check_support(files: Collection[str] = (), scene: SceneWriter | None = None) -> None:
    """Refuse outputs that cannot be made here.

    :param files: names of those that are asked for.
    :raises LesionDecompError: what they need is not installed.
    """
    require(*(module for file in files for module in NEEDED.get(file, ())))
    if scene is not None:
        scene.check_scene_support()
    if DICOM_SEG in files:
        check_dicom_seg_support()


def write_case(
    folder: str | Path,
    volume: Volume,
    result: SegmentResult,
    info: ReadInfo | None = None,
    *,
    overview: bool = False,
    scene: SceneWriter | None = None,
    page: bool = False,
    methods: bool = False,
    nifti: bool = False,
    dicom_source: str | Path | None = None,
    series: str | None = None,
    overwrite: bool = False,
    parameters: Mapping[str, Any] | None = None,
    source: Mapping[str, int] | None = None,
    warnings: list[str] | None = None,
) -> list[Path]:
    """Write heatmap, labelmaps, statistics, regions, report, and the healthy version where there is one.

    On demand a picture, a page, a scene, a paragraph for a paper, a DICOM SEG.

    The files are complete before the first of them appears in ``folder``; the report comes last. Files of an earlier
    run that are not part of this one are removed when ``overwrite`` is given; anything else in the folder stays.

    :param info: what the reader found about the input; its warnings go into report, picture and scene.
    :param scene: writes ``scene.mrb``.
    :param page: write ``report.html``.
    :param methods: write ``methods.txt``, a paragraph for a paper.
    :param nifti: write heatmap and labelmaps as ``.nii.gz``, too.
    :param dicom_source: folder of the DICOM series that was read, to write a DICOM segmentation that refers to it; this
        file alone identifies the patient.
    :param series: which of the series there was read, as :func:`LesionDecompLib.io.readers.read_volume` takes it.
    :param parameters: for the report, those that the result does not state.
    :param source: for the report, how the input lay on the disk, see
        :func:`LesionDecompLib.cli.batch.finished.source_state`.
    :param warnings: gets a sentence where no DICOM segmentation could be made, which costs no other file.
    :return: the files written.
    :raises LesionDecompError: earlier results without ``overwrite``, full disk, no permission, no slicer-core for the
        scene; the folder is then as it was.
    """
    folder = Path(folder)
    if info is not None:
        own = [text for text in result.warnings if text not in info.warnings]
        result = replace(result, warnings=[*info.warnings, *own])
    with staged_folder(folder, overwrite, last=REPORT, retired=ALL_FILES) as staging:
        for name, array in ((HEATMAP, result.heat), (LUNGS, result.lungs), (LESIONS, result.lesions)):
            write_image(staging / name, array, volume)
            if nifti:
                write_nifti(staging / NIFTI[name], array, volume)
        if result.healthy is not None:
            write_image(staging / HEALTHY, result.healthy, volume)
        if dicom_source is not None:
            failed = _write_seg(staging / DICOM_SEG, dicom_source, volume, result, series)
            result = replace(result, warnings=[*result.warnings, *failed])
            if warnings is not None:
                warnings += failed
        write_statistics_csv(staging / STATISTICS, result.statistics, result.warnings)
        if result.regions is not None:
            write_regions_csv(staging / REGIONS, result.regions, result.warnings)
        manifest = build_manifest(volume, result, info, parameters=parameters, source=source)
        title = f"CT {manifest['input']['sha256'][:12]}"
        if overview:
            from .overview import draw_overview  # not before: it loads PIL

            draw_overview(volume, result, title).save(staging / OVERVIEW)
        if scene is not None:
            # The volume is called after its file, which may be called after the patient.
            scene.write_scene(staging / SCENE, replace(volume, name=title), result, manifest=manifest)
        if methods:
            (staging / METHODS).write_text(methods_text(manifest), encoding="utf-8", newline="\n")
        if page:
            from .page import report_page  # not before: it loads PIL

            html = report_page(volume, result.heat, result.lungs, result.lesions, manifest)
            (staging / PAGE).write_text(html, encoding="utf-8", newline="\n")
        names = sorted(path.name for path in staging.iterdir())
        manifest["outputs"] = {name: file_sha256(staging / name) for name in names}
        (staging / REPORT).write_text(manifest_text(manifest), encoding="utf-8", newline="\n")
    return [folder / name for name in [*names, REPORT]]


def _write_seg(
    path: Path, source: str | Path, volume: Volume, result: SegmentResult, series: str | None
) -> list[Oddity]:
    """Write a DICOM segmentation; return what is reported where that cannot be.

    What a header may be wrong in has no end, and the other results are there: they are not lost for it.
    """
    try:
        write_dicom_seg(
            path,
            source,
            volume,
            result.lungs,
            result.lesions,
            lesion_algorithm=result.lesion_bundle,
            lung_algorithm=result.lung_bundle,
            series=series,
            descriptions=segment_descriptions(result.statistics),
        )
    except (LesionDecompError, OSError) as error:
        path.unlink(missing_ok=True)
        found = (
            "a DICOM series that can no longer be read"  # an error of reading names files, and with them the patient
        )
        if isinstance(error, OutputError):
            found = error.found.partition(" (")[0]  # what follows may quote the header, and with it the patient
        return [Oddity(f"No {DICOM_SEG} was written: found {found}.", SEG_NOT_WRITTEN, 1, 0)]
    return []
