"""The parameter node by the rules of Slicer's own wrapper: a parameter it cannot connect leaves the panel dead."""

from __future__ import annotations

import ast
import types
import typing
from xml.etree import ElementTree

import pytest
from repository import MODULE

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed (pip install .[headless])")


def declared_parameters() -> list[str]:
    tree = ast.parse((MODULE / "LesionDecomp.py").read_text("utf-8"))
    body = next(node.body for node in tree.body if getattr(node, "name", "") == "LesionDecompParameterNode")
    return [line.target.id for line in body if isinstance(line, ast.AnnAssign)]


def controls() -> dict[str, tuple[str, list[str]]]:
    """Parameter -> (class of its control in the .ui file, node types that the file names)."""
    found = {}
    for widget in ElementTree.parse(MODULE / "Resources" / "UI" / "LesionDecomp.ui").iter("widget"):
        properties = {p.get("name"): p for p in widget.findall("property")}
        if "SlicerParameterName" in properties:
            types_ = properties["nodeTypes"].iter("string") if "nodeTypes" in properties else ()
            name = properties["SlicerParameterName"].find("string").text
            assert name not in found, f"two controls for {name}"
            found[name] = (widget.get("class"), [one.text for one in types_])
    return found


def node_classes(annotation) -> list[type]:
    members = typing.get_args(annotation) or (annotation,)
    return [kind for kind in members if isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)]


CONTROLS = {
    bool: ("QCheckBox",),
    int: ("QSpinBox",),
    float: ("ctkSliderWidget", "QDoubleSpinBox"),
}


@pytest.mark.parametrize("name", declared_parameters())
def test_slicer_can_make_and_connect_the_parameter(module, name):
    """Concrete node classes, None possible, and a control of a class that the wrapper has a connector for."""
    annotation = typing.get_type_hints(module.LesionDecompParameterNode, include_extras=True)[name]
    control = controls().get(name)
    nodes = node_classes(annotation)
    if nodes:
        names = [kind().GetClassName() for kind in nodes]  # an abstract class raises
        union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
        assert not union or type(None) in typing.get_args(annotation)
        if control is not None:
            assert control == ("qMRMLNodeComboBox", names)
        return
    kind = typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation
    assert kind in (bool, int, float, str)
    if control is not None:
        assert control[0] in CONTROLS[kind]
        if control[0] == "ctkSliderWidget":
            (bounds,) = typing.get_args(annotation)[1:]
            assert bounds.minimum < bounds.maximum


def test_every_control_names_a_parameter():
    assert set(controls()) <= set(declared_parameters())


def test_an_abstract_node_class_is_refused_as_slicer_refuses_it(mrml_scene, panel_settings):
    """The stand-in for the wrapper has to raise where the real one does, or the suite sees nothing."""
    from headless_slicer.parameter_node import parameterNodeWrapper
    from headless_slicer.qt_panel import NodeComboBox

    class Parameters:
        mask: slicer.vtkMRMLDisplayableNode

    parameters = parameterNodeWrapper(Parameters)(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))
    selector = NodeComboBox()
    selector.setProperty("SlicerParameterName", "mask")
    with pytest.raises(TypeError, match="abstract"):
        parameters.connectGui(types.SimpleNamespace(mask=selector))


@pytest.mark.parametrize("kind", ["vtkMRMLLabelMapVolumeNode", "vtkMRMLSegmentationNode"])
def test_the_lung_mask_takes_either_kind_or_none_and_is_saved_with_the_scene(module, mrml_scene, kind):
    parameters = module.LesionDecompLogic().getParameterNode()
    node = slicer.mrmlScene.AddNewNodeByClass(kind, "Lungs")
    assert parameters.lungMask is None
    parameters.lungMask = node
    assert module.LesionDecompLogic().getParameterNode().lungMask == node
    with pytest.raises(TypeError):
        parameters.lungMask = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    parameters.lungMask = None
    assert module.LesionDecompLogic().getParameterNode().lungMask is None
