"""The report of one case as one page of HTML that needs no other file: pictures, figures, definitions, warnings.

It prints on one sheet of A4 paper, and from there to PDF. It says which CT it is about by the hash that identifies the
input, and nothing about the patient.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ct.grid import AxialView
from ..ct.volume import Volume
from ..measurement.statistics import AMOUNTS, MEASUREMENTS, REGION_HEADER, SIDES, measurement
from ..segmentation.lesions import volume_curve
from .charts import axis_chart, volume_chart
from .colors import heat_color_table
from .panels import SlicePanel, slice_panels
from .picture import LESION_COLOR, LUNG_COLOR, LUNG_WINDOW
from .style import STYLE

if TYPE_CHECKING:
    from PIL import Image

LETTERS = 1.5  # panels are shown at less than half their size
TITLE = "Lung lesions in chest CT"
TILES = ("involvement_percent", "lesion_volume_ml", "lung_volume_ml", "ground_glass_ml", "consolidation_ml")
DENSITIES = tuple(m.key for m in MEASUREMENTS if m.key not in AMOUNTS)


def report_page(
    volume: Volume, heat: np.ndarray, lungs: np.ndarray, lesions: np.ndarray, manifest: Mapping[str, Any]
) -> str:
    """Make the page.

    :param volume: the CT.
    :param heat, lungs, lesions: on its grid, ``(k, j, i)``, as a run gives them.
    :param manifest: of the run (:func:`LesionDecompLib.report.manifest.build_manifest`); figures, warnings and settings
        are taken from it.
    :return: HTML, UTF-8.
    """
    view = AxialView.of(volume.shape, volume.ijk_to_ras)
    stacks = [view.to_axial(array) for array in (volume.array, heat, lungs, lesions)]
    threshold = float(manifest["parameters"]["threshold"])
    figures = {
        row["region"]: {key: float("nan") if row[key] is None else float(row[key]) for key in row if key != "region"}
        for row in manifest["statistics"]
    }
    axial, coronal = slice_panels(view, stacks, threshold, LETTERS)
    body = [
        _heading(manifest),
        _tiles(figures["both lungs"]),
        _pictures(axial, coronal),
        _legend(threshold),
        '<div class="columns"><div class="wide">',
        _table("Volumes", figures, list(figures), AMOUNTS),
        '</div><div class="narrow">',
        volume_chart(*volume_curve(heat, lungs, volume.voxel_volume_ml), threshold),
        axis_chart(view.height_mm(np.arange(view.shape[0])), *_areas(view, stacks[2:])),
        "</div></div>",
        _density_table(figures),
        _warnings(manifest["warnings"]),
        '<div class="small">',
        _run(volume, manifest),
        _definitions(),
        "</div>",
        _footer(manifest),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{TITLE}, {escape(_name(manifest))}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _name(manifest: Mapping[str, Any]) -> str:
    return f"CT {manifest['input']['sha256'][:12]}"


def _heading(manifest: Mapping[str, Any]) -> str:
    when = manifest["run"]["finished_utc"].replace("T", " ").replace("+00:00", " UTC")
    return (
        f"<header><div><h1>{TITLE}</h1><p>{escape(_name(manifest))} · {escape(when)}</p></div>"
        f'<p class="notice">{escape(manifest["notice"])}</p></header>'
    )


def _tiles(values: Mapping[str, float]) -> str:
    tiles = [(m.title, m.text(values[m.key]), m.unit, m.definition) for m in map(measurement, TILES)]
    count, largest = measurement("lesion_count"), measurement("largest_lesion_ml")
    in_words = f"largest {largest.text(values[largest.key])} {largest.unit}"
    tiles.append((count.title, count.text(values[count.key]), in_words, count.definition))
    return (
        '<section class="tiles" aria-label="Key figures of both lungs">'
        + "".join(
            f'<div title="{escape(definition)}"><span>{escape(title)}</span><b>{escape(value)}</b>'
            f"<i>{escape(unit)}</i></div>"
            for title, value, unit, definition in tiles
        )
        + "</section>"
    )


def _pictures(axial: list[SlicePanel], coronal: list[SlicePanel]) -> str:
    def images(panels: list[SlicePanel], kind: str) -> str:
        return "".join(
            f'<img src="{_data_uri(panel.picture)}" width="{panel.picture.width}" height="{panel.picture.height}" '
            f'alt="{kind} slice {number} at {panel.position}: CT, heat and outlines">'
            for number, panel in enumerate(panels, start=1)
        )

    return (
        f'<section class="pictures"><div class="axial">{images(axial, "axial")}</div>'
        f'<div class="coronal">{images(coronal, "coronal")}</div></section>'
    )


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _legend(threshold: float) -> str:
    low, high = LUNG_WINDOW
    gradient = ",".join("rgb({},{},{})".format(*color) for color in heat_color_table(17))
    return (
        '<p class="legend"><span>heat 0</span>'
        f'<span class="bar" style="background:linear-gradient(to right,{gradient})">'
        f'<span style="left:{100 * threshold:.1f}%"></span></span><span>1</span>'
        f"<span>threshold {threshold:.3g}</span>"
        f'<span class="key" style="border-color:rgb{LESION_COLOR}"></span><span>lesion outline</span>'
        f'<span class="key" style="border-color:rgb{LUNG_COLOR}"></span><span>lung outline</span>'
        f"<span>window {high - low:.0f}, level {(low + high) / 2:.0f} HU; patient's right on the left</span></p>"
    )


def _areas(view: AxialView, masks: list[np.ndarray]) -> list[np.ndarray]:
    cm2 = view.spacing[1] * view.spacing[2] / 100
    return [np.array([np.count_nonzero(plane) for plane in mask]) * cm2 for mask in masks]


def _table(title: str, figures: Mapping[str, Mapping[str, float]], regions: list[str], keys: tuple[str, ...]) -> str:
    head = "".join(f'<th title="{escape(m.definition)}">{_header(m)}</th>' for m in map(measurement, keys))
    rows = []
    for region in regions:
        cells = "".join(f"<td>{measurement(key).text(figures[region][key])}</td>" for key in keys)
        kind = ' class="whole"' if region in SIDES else ""
        rows.append(f'<tr{kind}><th scope="row">{escape(region.capitalize())}</th>{cells}</tr>')
    return (
        f"<table><caption>{title}</caption><thead><tr><th>{REGION_HEADER}</th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _header(m: Any) -> str:
    return escape(m.title) + (f"<br>({escape(m.unit)})" if m.unit else "")


def _density_table(figures: Mapping[str, Mapping[str, float]]) -> str:
    return _table("Density and heat", figures, list(SIDES), DENSITIES).replace("<table>", '<table class="dense">')


def _warnings(warnings: list[str]) -> str:
    if not warnings:
        return '<section class="fine"><b>No warnings.</b></section>'
    items = "".join(f"<li>{escape(text)}</li>" for text in warnings)
    return f'<section class="warnings"><b>Warnings</b><ul>{items}</ul></section>'


def _run(volume: Volume, manifest: Mapping[str, Any]) -> str:
    source, parameters = manifest["input"], manifest["parameters"]
    lines = [
        ("Lesion model", _model(manifest["models"]["lesions"])),
        ("Lung model", _model(manifest["models"]["lungs"])),
        ("Threshold", f"heat ≥ {float(parameters['threshold']):.3g}"),
        ("Smallest lesion kept", f"{float(parameters['min_volume_ml']):.3g} mL"),
        (
            "CT",
            f"{'×'.join(str(n) for n in source['size_ijk'])} voxels of "
            f"{'×'.join(f'{mm:.3g}' for mm in volume.spacing)} mm, {_format(source)}",
        ),
        ("Computed on", manifest["run"]["device"]),
    ]
    terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(text))}</dd>" for name, text in lines)
    return f"<section><h2>Run</h2><dl>{terms}</dl></section>"


def _model(bundle: Mapping[str, str] | None) -> str:
    if bundle is None:
        return "none: lung mask supplied"
    return f"{bundle['name']} {bundle['version']} (SHA-256 {bundle['sha256'][:12]}…)"


def _format(source: Mapping[str, Any]) -> str:
    facts = source.get("dicom") or {}
    kernel = f", kernel {facts['kernel']}" if "kernel" in facts else ""
    return ("from 3D Slicer" if source["format"] == "memory" else source["format"]) + kernel


def _definitions() -> str:
    terms = "".join(f"<dt>{escape(m.header)}</dt><dd>{escape(m.definition)}</dd>" for m in MEASUREMENTS)
    return f'<section class="definitions"><h2>Definitions</h2><dl>{terms}</dl></section>'


def _footer(manifest: Mapping[str, Any]) -> str:
    software = manifest["software"]
    return (
        f"<footer>{escape(software['name'])} {escape(software['version'])} · method: Yang et al., ISBI 2021, "
        f"arXiv:2103.00780 · {escape(manifest['notice'])}</footer>"
    )
