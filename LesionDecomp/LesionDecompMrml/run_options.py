"""What a run depends on besides its CT, and the nodes it writes into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

# Keywords of the logic's process and startProcess -> fields of RunOptions, and of its OutputNodes.
OPTION_KEYWORDS = {
    "lungMask": "lung_mask",
    "lungSegments": "lung_segments",
    "lungsAreEdited": "lungs_are_edited",
    "model": "model",
    "threshold": "threshold",
    "minimumVolumeMl": "minimum_volume_ml",
    "device": "device",
    "batchSize": "batch_size",
    "makeHealthy": "healthy",
    "engine": "engine",
}
OUTPUT_KEYWORDS = {
    "heatmapNode": "heatmap",
    "lungsNode": "lungs",
    "lesionsNode": "lesions",
    "tableNode": "table",
    "segmentationNode": "segmentation",
    "reportNode": "report",
    "healthyNode": "healthy",
}


@dataclass(frozen=True, eq=False)
class OutputNodes:
    """Nodes to write a result into; None makes a new one. ``segmentation`` may also be True: make a new one, too;
    with None or False a result has no segmentation."""

    heatmap: Any = None
    lungs: Any = None
    lesions: Any = None
    table: Any = None
    segmentation: Any = None
    report: Any = None
    healthy: Any = None

    @property
    def with_segmentation(self) -> bool:
        """Whether a segmentation is made even where no node is given for it."""
        return self.segmentation is True

    def nodes(self) -> dict[str, Any]:
        """Node or None by keyword of :func:`~.result_nodes.write_result`."""
        given = {
            "heatmap": self.heatmap,
            "lungs": self.lungs,
            "lesions": self.lesions,
            "table": self.table,
            "segmentation": None if self.with_segmentation else self.segmentation,
            "report_node": self.report,
            "healthy": self.healthy,
        }
        return {name: node or None for name, node in given.items()}


def without_nodes_of(outputs: Mapping[str, Any], nodes: Any) -> dict[str, Any]:
    """Outputs by name, None in place of those that belong to a result: there will be new ones beside it.

    :param nodes: of the result.
    """
    held = [node for node in vars(nodes).values() if node is not None]
    return {name: None if node in held else node for name, node in outputs.items()}


@dataclass(frozen=True, eq=False)
class RunOptions:
    """Options of one segmentation.

    :param lung_mask: labelmap node on the CT's grid (non-zero is lung; 1 right, 2 left) or segmentation node; None
        finds the lungs.
    :param lung_segments: IDs of the segmentation's segments that are lung; None takes those that are called lung.
    :param lungs_are_edited: the lung mask is an output of an earlier run, edited since; it may be written again.
    :param model: name or folder of a lesion model; None takes the default.
    :param threshold: lesion is where the heat is at least this, 0 to 1; None takes the model's.
    :param minimum_volume_ml: smaller lesions are left out, mL.
    :param device: "auto", "cpu", "cuda", "cuda:N" or "mps".
    :param batch_size: slices computed at a time.
    :param healthy: make a volume of the CT without its lesions as well; a node given for it asks for it, too.
    :param engine: "auto" (ONNX Runtime where it fits), "torch" or "onnx".
    :param outputs: nodes to write into.
    """

    lung_mask: Any = None
    lung_segments: Sequence[str] | None = None
    lungs_are_edited: bool = False
    model: str | None = None
    threshold: float | None = None
    minimum_volume_ml: float = 0.1
    device: str = "auto"
    batch_size: int = 8
    healthy: bool = False
    engine: str = "auto"
    outputs: OutputNodes = field(default_factory=OutputNodes)

    @property
    def with_healthy(self) -> bool:
        """Whether the healthy version of the CT is made."""
        return self.healthy or self.outputs.healthy is not None

    @classmethod
    def of(cls, options: RunOptions | None, lung_mask: Any, keywords: Mapping[str, Any]) -> RunOptions:
        """Options as ``LesionDecompLogic.process`` takes them: an object, the lung mask, and single keywords.

        :raises TypeError: a keyword that there is not.
        """
        given = {"lungMask": lung_mask} if lung_mask is not None else {}
        return (options or cls()).with_keywords({**keywords, **given})

    def with_keywords(self, keywords: Mapping[str, Any]) -> RunOptions:
        """These options with some replaced, named as ``LesionDecompLogic.process`` takes them.

        :raises TypeError: a keyword that there is not.
        """
        unknown = sorted(set(keywords) - set(OPTION_KEYWORDS) - set(OUTPUT_KEYWORDS))
        if unknown:
            raise TypeError(f"unexpected keyword argument '{unknown[0]}'")
        outputs = {OUTPUT_KEYWORDS[name]: value for name, value in keywords.items() if name in OUTPUT_KEYWORDS}
        options = {OPTION_KEYWORDS[name]: value for name, value in keywords.items() if name in OPTION_KEYWORDS}
        return replace(self, **options, outputs=replace(self.outputs, **outputs))
