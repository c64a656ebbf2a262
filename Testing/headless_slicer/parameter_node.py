"""``slicer.parameterNodeWrapper``: typed properties kept in a parameter node, by the rules of the real wrapper.

Rules that have broken panels, and are therefore kept here: a node parameter's classes are instantiated when the panel
is connected, so that an abstract class raises TypeError; a Union's value is stored under ``name.index``, None needs a
place in the Union; a control must be of the very class that the real wrapper has a connector for; a connected node
selector offers the declared classes, whatever the .ui file has; values are cached until the parameter node reports that
it was modified.
"""

from __future__ import annotations

import types
import typing
import weakref
from dataclasses import dataclass

import slicer
import vtk

__all__ = ["Choice", "Default", "Maximum", "Minimum", "WithinRange", "parameterNodeWrapper"]


@dataclass
class Default:
    value: typing.Any


@dataclass
class Minimum:
    minimum: float

    def validate(self, value) -> None:
        if value < self.minimum:
            raise ValueError(f"Value must be at least {self.minimum}, got {value}")


@dataclass
class Maximum:
    maximum: float

    def validate(self, value) -> None:
        if value > self.maximum:
            raise ValueError(f"Value must be at most {self.maximum}, got {value}")


@dataclass
class WithinRange:
    minimum: float
    maximum: float

    def validate(self, value) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within [{self.minimum}, {self.maximum}], got {value}")


@dataclass
class Choice:
    choices: list

    def validate(self, value) -> None:
        if value not in self.choices:
            raise ValueError(f"Value must be one of {self.choices}, got {value}")


def _is_node_class(kind) -> bool:
    return isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)


class _Parameter:
    """One property: nodes as references, the rest as text parameters."""

    def __init__(self, name: str, annotation, owner: type) -> None:
        self.name = name
        self.type, self.extras, default = annotation, [], None
        if typing.get_origin(annotation) is typing.Annotated:
            self.type, *self.extras = typing.get_args(annotation)
            default = next((extra.value for extra in self.extras if isinstance(extra, Default)), None)
        self.is_union = typing.get_origin(self.type) in (typing.Union, types.UnionType)
        members = typing.get_args(self.type) if self.is_union else (self.type,)
        self.node_classes = [kind for kind in members if _is_node_class(kind)]
        self.is_node = bool(self.node_classes)
        if self.is_union and not all(_is_node_class(kind) or kind is type(None) for kind in members):
            raise TypeError(f"the headless parameterNodeWrapper knows Unions of nodes and None only (parameter {name})")
        if not self.is_node and self.type not in (bool, int, float, str):
            raise TypeError(f"the headless parameterNodeWrapper does not know {self.type} (parameter {name})")
        self.takes_none = not self.is_union or type(None) in members
        if default is None and not self.is_node:
            default = getattr(owner, name, self.type())
        self.default = default

    def _stored_names(self) -> list[str]:
        names = [f"{self.name}.{index}" for index in range(len(typing.get_args(self.type)))]
        return names if self.is_union else [self.name]

    def is_in(self, node) -> bool:
        if self.is_node:
            return any(node.HasParameter(name) for name in self._stored_names())
        return node.GetParameter(self.name) != ""

    def read(self, node):
        if not self.is_in(node):
            self.write(node, self.default)
        if self.is_node:
            name = next(name for name in self._stored_names() if node.HasParameter(name))
            return node.GetNodeReference(name)
        text = node.GetParameter(self.name)
        return text == "True" if self.type is bool else self.type(text)

    def write(self, node, value) -> None:
        if self.is_node:
            self._write_node(node, value)
            return
        value = self.type(value)
        for extra in self.extras:
            if hasattr(extra, "validate"):
                extra.validate(value)
        node.SetParameter(self.name, str(value))

    def _write_node(self, node, value) -> None:
        members = typing.get_args(self.type) if self.is_union else (self.type,)
        if value is None:
            if not self.takes_none:
                raise TypeError(f"Unable to write value 'None' of type '{type(None)}' ({self.name})")
            index = members.index(type(None)) if self.is_union else 0
        else:
            fits = [n for n, kind in enumerate(members) if _is_node_class(kind) and isinstance(value, kind)]
            if not fits:
                wanted = " or ".join(kind.__name__ for kind in self.node_classes)
                raise TypeError(f"{self.name} must be a {wanted}, got {type(value).__name__}")
            index = fits[0]
        names = self._stored_names()
        modified = node.StartModify()
        try:
            for name in names:
                node.UnsetParameter(name)
                node.RemoveNodeReferenceIDs(name)
            node.SetParameter(names[index], "True" if value is None and self.is_union else "")
            if value is not None:
                node.SetNodeReferenceID(names[index], value.GetID())
        finally:
            node.EndModify(modified)

    def prepare_control(self, control) -> None:
        """What the real connector does to a control when it is made."""
        if self.is_node:
            control.setProperty("nodeTypes", [kind().GetClassName() for kind in self.node_classes])
        for extra in self.extras:
            if isinstance(extra, WithinRange):
                control.setProperty("minimum", extra.minimum)
                control.setProperty("maximum", extra.maximum)


def _connector(parameter: _Parameter, control):
    """Signal, reading and writing of a control for a parameter; the real wrapper asks for the very class, too."""
    from .qt_panel import VALUES, NodeComboBox

    kind = type(control)
    fits = parameter.is_node if kind is NodeComboBox else parameter.type in VALUES.get(kind, ((),))[0]
    if not fits:
        raise RuntimeError(
            f"Unable to create GUI connector from datatype '{parameter.type}' to widget type '{kind}' "
            f"(parameter {parameter.name})"
        )
    parameter.prepare_control(control)
    return VALUES[kind][1:]


def parameterNodeWrapper(cls: type) -> type:
    """Turn an annotated class into a view of a parameter node."""
    parameters = {
        name: _Parameter(name, annotation, cls)
        for name, annotation in typing.get_type_hints(cls, include_extras=True).items()
    }

    def initialize(self, node, _prefix=None) -> None:
        self.parameterNode = node
        for parameter in parameters.values():
            if not parameter.is_in(node):
                parameter.write(node, parameter.default)
        self._values = {}
        read_all(self)
        held = weakref.ref(self)  # or the observer would keep it, and itself, forever
        self._observer = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_event: read_all(held()))

    def read_all(self) -> None:
        self._values = {name: parameter.read(self.parameterNode) for name, parameter in parameters.items()}

    def set_value(self, parameter, value) -> None:
        modified = self.parameterNode.StartModify()
        try:
            parameter.write(self.parameterNode, value)
            self._values[parameter.name] = parameter.read(self.parameterNode)
        finally:
            self.parameterNode.EndModify(modified)

    def connect_gui(self, controls) -> None:
        """Tie each control to the parameter that its SlicerParameterName names, both ways."""
        named = [(control.property("SlicerParameterName"), control) for control in vars(controls).values()]
        for name, _control in named:
            if name and name not in parameters:
                raise ValueError(f"Cannot find a param with the given name: {name}")
        # All are made before any is connected: one that cannot be made leaves the panel without its parameters.
        made = {name: (control, *_connector(parameters[name], control)) for name, control in named if name}
        self._controls, self._showing = {}, False
        for name, (control, signal, read, write) in made.items():

            def edited(*_value, name=name, control=control, read=read) -> None:
                if not self._showing:
                    setattr(self, name, read(control))

            write(control, self._values[name])
            getattr(control, signal).connect(edited)
            self._controls[name] = (control, signal, edited, write)
        self._gui_observer = self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_event: show(self))

    def show(self) -> None:
        if self._showing:
            return
        self._showing = True
        try:
            for name, (control, _signal, _edited, write) in self._controls.items():
                write(control, self._values[name])
        finally:
            self._showing = False

    def disconnect_gui(self, _tag) -> None:
        self.parameterNode.RemoveObserver(self._gui_observer)
        for control, signal, edited, _write in self._controls.values():
            getattr(control, signal).disconnect(edited)
        self._controls = {}

    cls.__init__ = initialize
    cls.__del__ = lambda self: self.parameterNode.RemoveObserver(self._observer)
    cls.connectGui, cls.disconnectGui = connect_gui, disconnect_gui
    cls.allParameters = parameters
    for parameter in parameters.values():
        setattr(
            cls,
            parameter.name,
            property(
                lambda self, p=parameter: self._values[p.name],
                lambda self, value, p=parameter: set_value(self, p, value),
            ),
        )
    cls.StartModify = lambda self: self.parameterNode.StartModify()
    cls.EndModify = lambda self, was_modified: self.parameterNode.EndModify(was_modified)
    cls.AddObserver = lambda self, event, callback, priority=0.0: self.parameterNode.AddObserver(
        event, callback, priority
    )
    cls.RemoveObserver = lambda self, tag: self.parameterNode.RemoveObserver(tag)
    cls.Modified = lambda self: self.parameterNode.Modified()
    return cls
