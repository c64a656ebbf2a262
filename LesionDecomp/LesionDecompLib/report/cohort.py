"""The picture of a batch: how involvement is distributed over its cases, which are outliers, which have warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .charts import round_scale
from .panels import TEXT, write

SIZE = (1600, 1000)
LEFT, RIGHT = 90, 1560
BARS_TOP, BARS_FOOT = 170, 500
DOTS_TOP, DOTS_FOOT = 580, 860
BINS = 40
MOST_NAMED = 8
WHISKERS = 1.5  # interquartile ranges beyond the quartiles, as in Tukey's box plot
BACKGROUND, RULE, FAINT = (11, 13, 17), (58, 64, 76), (150, 160, 174)
PLAIN, OUTLIER, WARNED = (110, 170, 220), (255, 96, 96), (255, 190, 90)
RESEARCH_USE = "Research use only - not a medical device"


@dataclass(frozen=True, eq=False)
class Cohort:
    """What is drawn of a batch.

    :param names: of the finished cases.
    :param involvement: ``(n,)`` lesion in percent of the lungs of each; NaN where undefined.
    :param warned: ``(n,)`` whether a case has warnings.
    :param others: cases that are not finished, by status.
    """

    names: Sequence[str]
    involvement: np.ndarray
    warned: np.ndarray
    others: Mapping[str, int]

    def outliers(self) -> np.ndarray:
        """``(n,)`` whether a case lies more than 1.5 interquartile ranges beyond the quartiles."""
        low, high = self.fences()
        with np.errstate(invalid="ignore"):
            return (self.involvement < low) | (self.involvement > high)

    def fences(self) -> tuple[float, float]:
        """Where outliers begin, percent."""
        known = self.involvement[np.isfinite(self.involvement)]
        if not known.size:
            return 0.0, 100.0
        first, third = np.percentile(known, (25, 75))
        reach = WHISKERS * (third - first)
        return float(first - reach), float(third + reach)


def draw_cohort(cohort: Cohort) -> Image.Image:
    """Draw a histogram of involvement, and below it each case as a dot.

    :return: RGB image, 1600 by 1000 pixels.
    """
    page = Image.new("RGB", SIZE, BACKGROUND)
    draw = ImageDraw.Draw(page)
    write(draw, (LEFT, 50), f"Involvement of {_counted(len(cohort.names), 'case')}", 30, anchor="lm")
    write(draw, (RIGHT, 50), RESEARCH_USE, 22, WARNED, anchor="rm")
    write(draw, (LEFT, 100), _in_words(cohort), 20, FAINT, anchor="lm")
    known = cohort.involvement[np.isfinite(cohort.involvement)]
    if not known.size:
        write(draw, (SIZE[0] // 2, SIZE[1] // 2), "No finished case yet", 30, FAINT, anchor="mm")
        return page
    step, end = round_scale(float(known.max()))
    _draw_bars(draw, known, end)
    _draw_box(draw, cohort, known, end)
    _draw_dots(draw, cohort, end)
    _draw_axis(draw, step, end)
    _draw_legend(draw)
    return page


def _in_words(cohort: Cohort) -> str:
    known = cohort.involvement[np.isfinite(cohort.involvement)]
    parts = [f"{count} {status}" for status, count in sorted(cohort.others.items()) if count]
    parts.insert(0, f"{_counted(int(cohort.outliers().sum()), 'outlier')}, {int(cohort.warned.sum())} with warnings")
    if known.size:
        first, median, third = np.percentile(known, (25, 50, 75))
        parts.insert(0, f"Median {median:.3g} %, quartiles {first:.3g} % and {third:.3g} %")
    return "; ".join(parts)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _x(percent: float, end: float) -> float:
    return LEFT + (RIGHT - LEFT) * percent / end


def _draw_bars(draw: ImageDraw.ImageDraw, known: np.ndarray, end: float) -> None:
    counts, edges = np.histogram(known, BINS, (0.0, end))
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            top = BARS_FOOT - (BARS_FOOT - BARS_TOP) * count / counts.max()
            draw.rectangle((_x(low, end) + 1, top, _x(high, end) - 1, BARS_FOOT), fill=PLAIN)
    write(draw, (LEFT - 12, BARS_TOP), str(counts.max()), 18, FAINT, anchor="rm")
    write(draw, (LEFT - 12, BARS_FOOT), "0", 18, FAINT, anchor="rm")
    write(draw, (LEFT, BARS_TOP - 22), "cases", 18, FAINT, anchor="lm")


def _draw_box(draw: ImageDraw.ImageDraw, cohort: Cohort, known: np.ndarray, end: float) -> None:
    """Tukey's box plot between histogram and dots: whiskers end at the last case that is no outlier."""
    low, high = cohort.fences()
    inside = known[(known >= low) & (known <= high)]
    first, median, third = (_x(value, end) for value in np.percentile(known, (25, 50, 75)))
    middle = (BARS_FOOT + DOTS_TOP) // 2
    draw.line((_x(inside.min(), end), middle, _x(inside.max(), end), middle), fill=FAINT, width=2)
    draw.rectangle((first, middle - 16, third, middle + 16), fill=BACKGROUND, outline=FAINT, width=2)
    draw.line((median, middle - 16, median, middle + 16), fill=TEXT, width=3)


def _draw_dots(draw: ImageDraw.ImageDraw, cohort: Cohort, end: float) -> None:
    """Each case as a dot at its involvement, stacked where several share a place."""
    outliers, columns = cohort.outliers(), Counter[int]()
    places: dict[int, tuple[int, int]] = {}
    for number in np.argsort(cohort.involvement, kind="stable"):
        value = cohort.involvement[number]
        if np.isfinite(value):
            column = round((_x(value, end) - LEFT) / 9)
            places[int(number)] = column, columns[column]
            columns[column] += 1
    step = min(10.0, (DOTS_FOOT - DOTS_TOP) / max(columns.values()))
    # What is marked is drawn last, over what is not.
    for number in sorted(places, key=lambda number: (bool(cohort.warned[number]), bool(outliers[number]))):
        column, height = places[number]
        x, y = LEFT + 9 * column, DOTS_FOOT - 6 - step * height
        _draw_dot(draw, x, y, bool(outliers[number]), bool(cohort.warned[number]))
    outlying = sorted((n for n in places if outliers[n]), key=lambda n: -cohort.involvement[n])
    for row, number in enumerate(outlying[:MOST_NAMED]):
        column, height = places[number]
        y, line = DOTS_FOOT - 6 - step * height, DOTS_TOP + 24 * row
        draw.line((LEFT + 9 * column, line + 8, LEFT + 9 * column, y - 8), fill=RULE)
        name = cohort.names[number]
        text = f"{name if len(name) <= 32 else name[:31] + '…'} {cohort.involvement[number]:.3g} %"
        anchor = "rm" if LEFT + 9 * column > (LEFT + RIGHT) // 2 else "lm"
        write(draw, (LEFT + 9 * column, line), text.replace("…", "..."), 17, OUTLIER, anchor=anchor, halo=True)


def _draw_dot(draw: ImageDraw.ImageDraw, x: float, y: float, outlier: bool, warned: bool) -> None:
    color = OUTLIER if outlier else PLAIN
    if outlier:
        draw.polygon([(x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y)], fill=color)
    else:
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=color)
    if warned:
        draw.ellipse((x - 7, y - 7, x + 7, y + 7), outline=WARNED, width=2)


def _draw_axis(draw: ImageDraw.ImageDraw, step: float, end: float) -> None:
    for foot in (BARS_FOOT, DOTS_FOOT):
        draw.line((LEFT, foot, RIGHT, foot), fill=RULE, width=2)
    for number in range(round(end / step) + 1):
        x = _x(number * step, end)
        draw.line((x, DOTS_FOOT, x, DOTS_FOOT + 8), fill=RULE, width=2)
        write(draw, (x, DOTS_FOOT + 26), f"{number * step:g}", 18, FAINT, anchor="mm")
    write(draw, ((LEFT + RIGHT) // 2, DOTS_FOOT + 56), "lesion in percent of both lungs", 18, FAINT, anchor="mm")


def _draw_legend(draw: ImageDraw.ImageDraw) -> None:
    y, x = SIZE[1] - 40, LEFT
    for outlier, warned, text in (
        (False, False, "a case"),
        (True, False, f"outlier: more than {WHISKERS:g} interquartile ranges beyond the quartiles"),
        (False, True, "has warnings (summary.csv)"),
    ):
        _draw_dot(draw, x + 8, y, outlier, warned)
        write(draw, (x + 26, y), text, 18, FAINT, anchor="lm")
        x += 70 + 10 * len(text)
