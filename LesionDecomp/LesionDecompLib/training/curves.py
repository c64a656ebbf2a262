"""Training curves as a picture, drawn from ``log.csv`` while training goes on."""

from __future__ import annotations

import io
import math
from pathlib import Path

from ..io.atomic import write_bytes
from .loop import log_rows
from .val_precision import FLOOR

# What is not a loss or metric to look at over time.
NOT_DRAWN = ("step", "seconds")


def draw_curves(log: Path, picture: Path) -> bool:
    """Draw every column of ``log`` against the step; False where there is nothing to draw or no matplotlib.

    A column that is the floor of others is a line through their axes.
    """
    try:
        from matplotlib.figure import Figure  # an extra, slow to import
    except ImportError:
        return False
    if not log.exists():
        return False
    rows = log_rows(log)
    columns = [key for key in (rows[0] if rows else {}) if key not in NOT_DRAWN and not key.endswith(FLOOR)]
    if not columns:
        return False
    across = min(4, len(columns))
    figure = Figure(figsize=(3.4 * across, 2.4 * math.ceil(len(columns) / across)), layout="constrained")
    for axes, column in zip(
        figure.subplots(-(-len(columns) // across), across, squeeze=False).flat, columns, strict=False
    ):
        steps, values = _points(rows, column)
        axes.plot(steps, values, linewidth=1)
        for floor in (key for key in rows[0] if key.endswith(FLOOR) and column.startswith(key.removesuffix(FLOOR))):
            axes.axhline(_points(rows, floor)[1][-1], color="0.5", linestyle="--", linewidth=1)
        axes.set_title(column, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    for axes in figure.axes[len(columns) :]:
        axes.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    write_bytes(picture, buffer.getvalue(), "Drawing the training curves")
    return True


def _points(rows: list[dict[str, str]], column: str) -> tuple[list[int], list[float]]:
    known = [row for row in rows if row.get(column)]
    return [int(row["step"]) for row in known], [float(row[column]) for row in known]
