"""Looking nodes up in a given scene."""

from __future__ import annotations

THRESHOLD = "LesionDecomp.threshold"  # attribute that a result's heatmap has, and no other volume
OUTPUT = "LesionDecomp.output"  # attribute of volumes that results are written into: which output
MOST_KNOWN = 64


def nodes_of_class(scene, class_name: str) -> list:
    """All nodes of a class, subclasses included.

    ``slicer.util.getNodesByClass`` looks into the application's scene, whichever scene it is given.
    """
    return [scene.GetNthNodeByClass(n, class_name) for n in range(scene.GetNumberOfNodesByClass(class_name))]


def remove_with_displays(scene, nodes) -> None:
    """Take nodes out of a scene, and the display nodes that they have."""
    for node in nodes:
        for index in range(node.GetNumberOfDisplayNodes() if node.IsA("vtkMRMLDisplayableNode") else 0):
            scene.RemoveNode(node.GetNthDisplayNode(index))
        scene.RemoveNode(node)


def is_output(node) -> bool:
    """Whether a volume node holds, or was made for, an output of this module."""
    return node.GetAttribute(THRESHOLD) is not None or node.GetAttribute(OUTPUT) is not None


def chest_volumes(scene) -> list:
    """Scalar volumes that may be a chest CT: neither labelmaps nor outputs of this module."""
    return [node for node in scalar_volumes(scene) if not is_output(node)]


def scalar_volumes(scene) -> list:
    """Scalar volumes proper, without labelmaps and other subclasses: what a node selector for them lists."""
    return [
        node
        for node in nodes_of_class(scene, "vtkMRMLScalarVolumeNode")
        if node.GetClassName() == "vtkMRMLScalarVolumeNode"
    ]


def keep_latest(known: dict, node, value) -> None:
    """Keep what is known about a node, by its ID, and forget the oldest of many: nodes leave scenes unnoticed."""
    while len(known) >= MOST_KNOWN:
        known.pop(next(iter(known)))
    known[node.GetID()] = value
