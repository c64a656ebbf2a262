"""Color nodes of the results. They are kept in the scene and saved with it, so that no color file is needed."""

from __future__ import annotations

import slicer
from LesionDecompLib.ct.anatomy import Structure
from LesionDecompLib.report.colors import heat_color_table

from .scene_nodes import nodes_of_class

HEAT = "LesionDecomp heat"
HEAT_STEPS = 256


def label_colors(scene, name: str, structures: tuple[Structure, ...]):
    """Find or make the color table node of a labelmap.

    :param name: of the node.
    :param structures: the labels, numbered from 1; 0 is transparent background.
    :return: a ``vtkMRMLColorTableNode`` with names, colors and codes.
    """
    node, is_new = _table(scene, name, len(structures) + 1)
    if not is_new:
        return node
    node.SetColor(0, "background", 0.0, 0.0, 0.0, 0.0)
    for structure in structures:
        node.SetColor(structure.label, structure.name, *structure.color, 1.0)
        if hasattr(node, "SetTerminology"):  # older Slicers have color tables without
            node.SetTerminology(
                structure.label, *structure.category, *structure.type, *structure.modifier, *structure.region
            )
    return scene.AddNode(node)


def heat_colors(scene):
    """Find or make the color table node of the heatmap, the colors of the overview picture."""
    node, is_new = _table(scene, HEAT, HEAT_STEPS)
    if not is_new:
        return node
    for step, color in enumerate(heat_color_table(HEAT_STEPS) / 255.0):
        node.SetColor(step, f"{step / (HEAT_STEPS - 1):.3f}", *(float(c) for c in color), 1.0)
    return scene.AddNode(node)


def _table(scene, name: str, colors: int):
    for found in nodes_of_class(scene, "vtkMRMLColorTableNode"):
        if found.GetName() == name:
            return found, False
    # Filled before it enters the scene, so that no view ever sees a half-made table.
    node = slicer.vtkMRMLColorTableNode()
    node.SetTypeToUser()
    node.SetName(name)
    node.SetAttribute("Category", "LesionDecomp")
    node.SetNumberOfColors(colors)
    return node, True
