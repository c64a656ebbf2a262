"""Pictures and the table of a comparison."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from ..io.atomic import write_bytes, write_text
from ..training.data.slices import SliceSet, lung_crops
from ..training.heat_scale import MASKS
from ..training.val_precision import CHIEF
from .comparison import Comparison
from .localizers import FLOORS, PARTS, Localizer

STAGE = "Drawing the comparison"
PR_NAME, DICE_NAME, EXAMPLES_NAME, TABLE_NAME = "pr_curves.png", "dice_thresholds.png", "examples.png", "table.md"
TRAININGS_NAME = "trainings.png"
PICTURES = (PR_NAME, DICE_NAME, EXAMPLES_NAME, TRAININGS_NAME)
EXAMPLE_SIZE = (160, 192)
LEAST_PIXELS = 300  # of lesion in a slice worth showing
METHOD_LINES = ("-", ":", "-.")
GRID = np.linspace(0.005, 0.995, 199)


def draw_precision_recall(comparison: Comparison, results: dict[str, Any], picture: Path) -> None:
    """A panel for each mask set, a curve for each method, the pooled average precision in the legend."""
    figure, panels = _panels(len(MASKS))
    for axes, mask in zip(panels, MASKS, strict=True):
        for name, style in _styles(comparison).items():
            precision, recall = comparison.measured[name].pooled(mask).precision_recall()
            label = f"{name} {results['methods'][name][mask]['average_precision']:.2f}"
            axes.plot(recall, precision, label=label, **style)
        axes.set(title=mask, xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1))
        _legend_below(axes, title="average precision")
    save_figure(figure, picture)


def draw_dice(comparison: Comparison, results: dict[str, Any], picture: Path) -> None:
    """Pooled Dice against the threshold, a panel for each mask set; a dot where each method's default lies."""
    figure, panels = _panels(len(MASKS))
    human = results["human"]
    for axes, mask in zip(panels, MASKS, strict=True):
        for name, style in _styles(comparison).items():
            measured = comparison.measured[name]
            counts = measured.pooled(mask)
            (line,) = axes.plot(GRID, counts.dice(GRID), label=name, **style)
            axes.plot(measured.threshold, counts.dice(measured.threshold)[0], "o", ms=4, color=line.get_color())
        best = max(row["dice"] for pair, row in human.items() if mask in pair.split("-"))
        axes.axhline(best, color="black", linestyle=":", linewidth=1, label="reader against reader")
        axes.set(title=mask, xlabel="threshold", ylabel="Dice", xlim=(0, 1), ylim=(0, 1))
        _legend_below(axes)
    save_figure(figure, picture)


def draw_examples(
    comparison: Comparison, localizers: Sequence[Localizer], picture: Path, count: int = 5, most: int = 9
) -> None:
    """Slice, readers' marks, each method's heat, and the first method's lesions, on fixed slices of different scans.

    Heat is colored from 0 to twice the method's own threshold, outlines are where it is reached.

    :param most: methods shown, in the order given, parts of a decomposition's heat (:data:`.localizers.PARTS`) last;
        floors are left out.
    """
    from matplotlib.figure import Figure  # an extra, slow to import

    data = comparison.data
    chosen = example_slices(data, comparison.masks[MASKS[0]], count)
    images = data.images[data.lesion][chosen]
    shown = [row for row in localizers if row.method not in FLOORS]
    shown = sorted(shown, key=lambda row: row.method in PARTS)[:most]
    gray = lung_crops(images, EXAMPLE_SIZE)
    truth = lung_crops(comparison.masks[MASKS[0]][chosen].astype(np.uint8), EXAMPLE_SIZE, around=images)
    columns = 2 + len(shown) + bool(shown)
    figure = Figure(figsize=(1.55 * columns, 1.4 * len(chosen) + 0.5), layout="constrained")
    panels = figure.subplots(len(chosen), columns, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for row, (image, marked) in enumerate(zip(gray, truth, strict=True)):
        for axes in panels[row]:
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        panels[row, 1].contourf(marked, levels=[0.5, 1.5], colors=["#2ec4b6"], alpha=0.8)
    for column, localizer in enumerate(shown, start=2):
        threshold = comparison.measured[localizer.name].threshold
        heat = lung_crops(localizer.heat(images), EXAMPLE_SIZE, around=images)
        for row, warm in enumerate(heat):
            seen = np.ma.masked_where((gray[row] == 0) | (warm < 0.25 * threshold), warm)
            panels[row, column].imshow(seen, cmap="inferno", vmin=0, vmax=2 * threshold, alpha=0.75)
            if (warm >= threshold).any() and not (warm >= threshold).all():
                panels[row, column].contour(warm >= threshold, levels=[0.5], colors=["cyan"], linewidths=0.6)
                if column == 2:
                    found = (warm >= threshold).astype(float)
                    panels[row, -1].contourf(found, levels=[0.5, 1.5], colors=["#ff6b35"], alpha=0.8)
    titles = ["slice", f"reader {MASKS[0]}", *(row.name for row in shown)]
    titles += [f"{shown[0].name}\nlesions"] if shown else []
    for axes, title in zip(panels[0], titles, strict=True):
        axes.set_title(title.replace("/", "\n"), fontsize=6)
    save_figure(figure, picture)


def draw_trainings(trainings: Mapping[str, Mapping[str, Any]], picture: Path) -> bool:
    """Average precision on ``val`` along the steps of each training, and the floor.

    :param trainings: as :func:`.trainings.trainings_of` gives them.
    :return: False where none looked at ``val``: nothing is drawn then.
    """
    from matplotlib.figure import Figure  # an extra, slow to import

    watched = {name: row for name, row in trainings.items() if "curve" in row}
    if not watched:
        return False
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    for name, row in watched.items():
        # One look alone is a point, which a line would not show.
        axes.plot(*zip(*row["curve"], strict=True), label=name, lw=1, marker="o" if len(row["curve"]) == 1 else "")
    for floor in {row["floor"] for row in watched.values()}:
        axes.axhline(floor, color="0.5", linestyle="--", linewidth=1, label="blurred gray")
    axes.set(xlabel="updates", ylabel="average precision on val", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    save_figure(figure, picture)
    return True


def example_slices(data: SliceSet, marked: np.ndarray, count: int) -> list[int]:
    """Positions among the lesion slices: of scans spread evenly, the one with the median of marked lesion.

    :param marked: ``(n_lesion, h, w)`` bool.
    """
    scans, sizes = data.scans[data.lesion], marked.sum(axis=(1, 2))
    candidates = []
    for scan in np.unique(scans):
        own = np.flatnonzero((scans == scan) & (sizes >= LEAST_PIXELS))
        if len(own):
            candidates.append(int(own[np.argsort(sizes[own], kind="stable")[len(own) // 2]]))
    if len(candidates) <= count:
        return candidates or [int(sizes.argmax())]
    return [candidates[place] for place in np.linspace(0, len(candidates) - 1, count).round().astype(int)]


def write_table(results: dict[str, Any], file: Path) -> None:
    """The metrics as a Markdown table, best average precision first: means of the mask sets, 95 % intervals."""
    columns = ["method", "AP", "area under PR curve", "best Dice", "Dice at threshold best on val"]
    columns += ["Dice at default threshold", "mean slice Dice", "HD95, px", "normal lung called lesion, %"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    rows = sorted(results["methods"].items(), key=lambda item: -item[1]["mean"]["average_precision"])
    for name, entry in rows:
        mean = entry["mean"]
        distances = [entry[mask]["median_hd95_px"] for mask in results["masks"]]
        distance = "–" if None in distances else f"{np.mean(distances):.1f}"
        shown = f"{name} (floor)" if entry["floor"] else name
        lines.append(
            f"| {shown} | {mean['average_precision']:.3f}{_between(mean['average_precision_interval'])} | "
            f"{mean['auc_pr']:.3f} | {mean['best_dice']:.3f} | {_shown(mean.get('dice_at_val_threshold'))} | "
            f"{mean['dice_at_default']:.3f}{_between(mean['dice_at_default_interval'])} | "
            f"{_shown(mean['mean_slice_dice'])} | "
            f"{distance} | "
            f"{100 * entry['normal_false_positive_fraction']:.2f} |"
        )
    lines.append(f"| knowing nothing: lesion's share of lung | {results['prevalence']['mean']:.3f} |{' – |' * 7}")
    pairs = ", ".join(f"{pair} {row['dice']:.3f}" for pair, row in results["human"].items() if pair != "mean")
    lines.append(
        f"| one reader against another ({pairs}) | – | – | – | – | {results['human']['mean']['dice']:.3f} | – | – | – |"
    )
    lines += _seeds_table(results.get("seeds", {})) + _trainings_table(results)
    write_text(file, "\n".join(lines) + "\n", STAGE)


def _seeds_table(seeds: dict[str, Any]) -> list[str]:
    """Lines of what was trained with several seeds, best first: mean ± standard deviation; none where nothing was."""
    if not seeds:
        return []
    lines = ["", "| over seeds | seeds | AP | least – most | best Dice |", "|---|---|---|---|---|"]
    for name, row in sorted(seeds.items(), key=lambda item: -item[1]["average_precision"]["mean"]):
        precision, dice = row["average_precision"], row["best_dice"]
        lines.append(
            f"| {name} | {len(row['rows'])} | {precision['mean']:.3f} ± {precision['sd']:.3f} | "
            f"{precision['least']:.3f} – {precision['most']:.3f} | {dice['mean']:.3f} ± {dice['sd']:.3f} |"
        )
    return lines


def _trainings_table(results: dict[str, Any]) -> list[str]:
    """Lines of how the rows were trained; none where no run's log is there."""
    trainings = results.get("trainings", {})
    if not trainings:
        return []
    bundles = [entry["bundle"] for entry in results["methods"].values() if "bundle" in entry]
    of_names = {bundle["name"]: bundle for bundle in bundles}
    lines = ["", "| trained | seed | on | steps | hours | weights of step | AP on val |", "|---" * 7 + "|"]
    for name, training in trainings.items():
        bundle = of_names.get(name, {})
        precision = f"{bundle[CHIEF]:.3f}" if CHIEF in bundle else "–"
        devices = ", ".join(training.get("devices", "–"))
        lines.append(
            f"| {name} | {bundle.get('seed', '–')} | {devices} | {training['steps']:,} | "
            f"{training['hours']:.2f} | "
            f"{bundle.get('best_step', training['steps']):,} | {precision} |"
        )
    return lines


def _between(interval: list[float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.2f}–{interval[1]:.2f})"


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _legend_below(axes: Any, title: str | None = None) -> None:
    """A legend that covers no curve, however many methods there are."""
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 2}
    axes.legend(fontsize=6, title=title, title_fontsize=7, **place)


def _panels(count: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # an extra, slow to import

    figure = Figure(figsize=(4.6 * count, 6.0), layout="constrained")
    return figure, figure.subplots(1, count)


def _styles(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """A color for each model, a line for each of its methods (``model/method``); floors gray and dashed."""
    from matplotlib import colormaps  # an extra, slow to import

    styles: dict[str, dict[str, Any]] = {}
    colors = cycle(colormaps["tab10"](range(10)))
    of_model: dict[str, Any] = {}
    drawn: Counter[str] = Counter()
    for name in comparison.measured:
        model = name.partition("/")[0]
        if name in FLOORS:
            styles[name] = {"color": "0.5", "linestyle": "--", "linewidth": 1.1}
            continue
        if model not in of_model:
            of_model[model] = next(colors)
        line = METHOD_LINES[drawn[model] % len(METHOD_LINES)]
        styles[name] = {"color": of_model[model], "linestyle": line, "linewidth": 1.1 if styles else 2.2}
        drawn[model] += 1
    return styles


def save_figure(figure: Any, picture: Path) -> None:
    """Write a matplotlib figure as PNG, complete or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    write_bytes(picture, buffer.getvalue(), STAGE)
