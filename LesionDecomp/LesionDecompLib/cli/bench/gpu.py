"""``lesiondecomp bench --device cuda``: what to expect of a GPU, what it then did, in a file that a user can send.

The file names the graphics card, the driver's and torch's versions and times; of the CT nothing but its size.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ... import __version__
from ...errors import LesionDecompError
from ...io.readers import read_volume
from ...models.bundle import find_bundle
from ...models.device import choose_device, has_nvidia_card
from ...models.precision import fast_precision
from ...models.runtime import BF16_HEAT_ERROR, LARGEST_HEAT_ERROR
from ...pipeline import DEFAULT_BATCH_SIZE, Segmenter
from .job import Chosen, run_benchmark
from .roofline import expected_batch

FILE = "lesiondecomp-bench.json"
KINDS = {"7.0 and 7.5 (Volta, Turing)": torch.float16, "8.0 and later (Ampere, Ada, Hopper)": torch.bfloat16}
ELSEWHERE = "before 7.0"


def run_gpu_benchmark(
    path: Path, chosen: Chosen, repeats: int = 3, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Report what to expect of a GPU, and measure it where there is one.

    :param chosen: its ``device`` is ``"cuda"`` or ``"cuda:N"``.
    :return: what to expect, and ``measured``: None without a GPU, for the reason in ``not_measured``.
    """
    report: dict[str, Any] = {
        "report": "LesionDecomp GPU",
        "version": __version__,
        "system": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "nvidia_driver": has_nvidia_card(),
        "expected": expectation(),
        "measured": None,
    }
    try:
        device, _ = choose_device(chosen.device)
    except LesionDecompError as error:
        return {**report, "not_measured": str(error)}
    properties = torch.cuda.get_device_properties(device)
    report["gpu"] = {
        "name": properties.name,
        "capability": [properties.major, properties.minor],
        "memory_mib": properties.total_memory // 2**20,
        "precision": str(fast_precision(device)).removeprefix("torch."),
    }
    torch.cuda.reset_peak_memory_stats(device)
    measured = run_benchmark(path, chosen, repeats, progress)
    measured["peak_gpu_memory_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    measured["largest_heat_difference_from_cpu"] = heat_difference(path, chosen)
    return {**report, "measured": measured}


def expectation(batch_size: int = DEFAULT_BATCH_SIZE) -> dict[str, Any]:
    """What the shipped networks take on GPUs of each generation: the lesion network computes in 16 bits only where its
    heat was found to bear them."""
    found: dict[str, Any] = {}
    bundles = [find_bundle(None, task) for task in ("lungs", "lesions")]
    for name, fast in {**KINDS, ELSEWHERE: torch.float32}.items():
        of_task = {}
        for bundle in bundles:
            error = bundle.metadata.get(BF16_HEAT_ERROR)
            bears = bundle.task == "lungs" or (isinstance(error, float) and error <= LARGEST_HEAT_ERROR)
            of_task[bundle.task] = expected_batch(bundle, batch_size, fast if bears else torch.float32)
        found[name] = of_task
    return found


def heat_difference(path: Path, chosen: Chosen) -> float:
    """Largest difference of the GPU's heat from the processor's in float32, in the same lungs."""
    volume, _ = read_volume(path)
    plain = Segmenter(device="cpu", engine="torch", precision="float32")
    expected = plain.run(volume)
    found = chosen.segmenter().run(volume, lung_mask=expected.lungs)
    return float(abs(found.heat - expected.heat).max())


def as_table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        "| compute capability | network | computes in | GFLOP a slice | weights, MiB | a batch at most, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for name, tasks in report["expected"].items():
        for task, row in tasks.items():
            lines.append(
                f"| {name} | {task}, {row['slices']} slices | {row['precision']} | {row['gflop_a_slice']:g} | "
                f"{row['weights_mib']:g} | {row['batch_mib']:g} |"
            )
    lines += ["", "cuDNN's work space comes on top; a batch that does not fit is halved once, with a warning."]
    measured = report["measured"]
    if measured is None:
        lines.append(f"Not measured here: {report['not_measured']}")
        return "\n".join(lines) + "\n"
    gpu, whole, alone = report["gpu"], measured["end_to_end"], measured["networks_alone"]
    card = f"{gpu['name']}, capability {'.'.join(map(str, gpu['capability']))}, {gpu['memory_mib']} MiB"
    lines.append(
        f"{card}: end to end {whole['wall_s']:.2f} s, forward passes {alone['wall_s']:.2f} s, at most "
        f"{measured['peak_gpu_memory_mib']:g} MiB; heat differs from the processor's by "
        f"{measured['largest_heat_difference_from_cpu']:.1g} at most."
    )
    return "\n".join(lines) + "\n"
