"""Fill the tables of Documentation/performance.md from one run on this machine: python performance_page.py CT.nii.gz

Measures a case as shipped and with float32 alone, each against PyTorch in float32 in turn, peak memory of long scans in
processes of their own, and writes them, each with the load average beside it, between the page's markers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from LesionDecompLib.cli.bench.job import Chosen, load_average, run_benchmark, scaling

PAGE = Path(__file__).resolve().parents[2] / "Documentation" / "performance.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def case_rows(name: str, metrics: dict[str, Any]) -> list[str]:
    """Rows of one way to compute a case."""
    engines = ", ".join(f"{task} {metrics['engine'][task]} {metrics['precision'][task]}" for task in metrics["engine"])
    load, ways = f"{max(filter(None, metrics['load_average']['turns']), default=0):g}", (
        (f"{name} ({engines})", metrics["end_to_end"]),
        ("its forward passes", metrics["networks_alone"]),
        ("the same case with PyTorch in float32", metrics["torch_float32"]),
    )  # fmt: skip
    rows = [f"| {text} | {times['wall_s']:.2f} | {times['cpu_s']:.2f} | {load} |" for text, times in ways]
    over, line = metrics["torch_float32"]["case_over_it"], metrics["roofline"]
    rows.append(f"| over PyTorch in float32 | **{over['wall']:.2f}** | {over['cpu']:.2f} | |")
    rates = ", ".join(f"{value:g} in {kind}" for kind, value in metrics["matmul_gflops"].items())
    rows.append(
        f"| of the roofline ({sum(line['gflop'].values()):.0f} GFLOP at {line['gflops']:g} GFLOP/s; a matrix product "
        f"in these turns: {rates}) | {100 * line['of_roofline']:.0f} % | | |"
    )
    rows.append(
        f"| largest difference of heat, same lungs | {metrics['torch_float32']['largest_heat_difference']:.1g} | | |"
    )
    return rows


def page_text(ways: dict[str, dict[str, Any]], memory: list[tuple[dict[str, Any], float | None]]) -> str:
    """The tables, as Markdown."""
    first = next(iter(ways.values()))
    where, size = first["machine"], "×".join(str(n) for n in first["case"]["size_ijk"])
    lines = [
        f"{size}; {where['processor']}, {where['threads']} threads, torch {where['torch']}; medians of "
        f"{first['repeats']} turns, alternating. Load: the largest load average of the turns.",
        "",
        "| | on the clock, s | CPU time, s | load |",
        "|---|---|---|---|",
    ]
    for name, metrics in ways.items():
        lines += case_rows(name, metrics)
    if memory:
        lines += ["", "| slices | s | peak memory, MiB | load |", "|---|---|---|---|"]
        lines += [f"| {r['slices']} | {r['seconds']:g} | {r['peak_memory_mib']:.0f} | {load} |" for r, load in memory]
    return "\n".join(lines)


def filled(page: str, text: str) -> str:
    """The page with ``text`` between its markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise SystemExit(f"{PAGE.name} has no markers")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ct", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slices", type=int, nargs="*", default=[], help="also memory of so many slices, e.g. 600")
    parser.add_argument("--json", type=Path, help="also write all that was measured")
    args = parser.parse_args()
    ways = {
        name: run_benchmark(args.ct, chosen, args.repeats, print, against_torch=True)
        for name, chosen in {"as shipped": Chosen("cpu"), "float32": Chosen("cpu", precision="float32")}.items()
    }
    memory = [(row, load_average()) for count in args.slices for row in scaling(args.ct, [count], Chosen("cpu"), print)]
    if args.json is not None:
        args.json.write_text(json.dumps({"ways": ways, "memory": memory}, indent=2), "utf-8")
    PAGE.write_text(filled(PAGE.read_text("utf-8"), page_text(ways, memory)), "utf-8")


if __name__ == "__main__":
    main()
