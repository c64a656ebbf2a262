"""Looking nodes up in a given scene."""

from __future__ import annotations


def nodes_of_class(scene, class_name: str) -> list:
    """All nodes of a class, subclasses included.

    ``slicer.util.getNodesByClass`` looks into the application's scene, whichever scene it is given.
    """
    return [scene.GetNthNodeByClass(n, class_name) for n in range(scene.GetNumberOfNodesByClass(class_name))]
