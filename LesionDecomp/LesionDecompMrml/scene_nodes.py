"""Looking nodes up in a given scene."""

from __future__ import annotations

THRESHOLD = "LesionDecomp.threshold"  # attribute that a result's heatmap has, and no other volume


def nodes_of_class(scene, class_name: str) -> list:
    """All nodes of a class, subclasses included.

    ``slicer.util.getNodesByClass`` looks into the application's scene, whichever scene it is given.
    """
    return [scene.GetNthNodeByClass(n, class_name) for n in range(scene.GetNumberOfNodesByClass(class_name))]


def chest_volumes(scene) -> list:
    """Scalar volumes that may be a chest CT: neither labelmaps nor heatmaps of results."""
    return [
        node
        for node in nodes_of_class(scene, "vtkMRMLScalarVolumeNode")
        if not node.IsA("vtkMRMLLabelMapVolumeNode") and node.GetAttribute(THRESHOLD) is None
    ]
