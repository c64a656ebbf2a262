"""``slicer.parameterNodeWrapper``: typed properties kept in a parameter node, in Slicer's own serialized form."""

from __future__ import annotations

import typing
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


class _Parameter:
    """One property: nodes as references, the rest as text parameters."""

    def __init__(self, name: str, annotation, owner: type) -> None:
        self.name = name
        self.type, self.validators, default = annotation, [], None
        if typing.get_origin(annotation) is typing.Annotated:
            self.type, *extras = typing.get_args(annotation)
            self.validators = [extra for extra in extras if hasattr(extra, "validate")]
            default = next((extra.value for extra in extras if isinstance(extra, Default)), None)
        self.is_node = isinstance(self.type, type) and issubclass(self.type, slicer.vtkMRMLNode)
        if not self.is_node and self.type not in (bool, int, float, str):
            raise TypeError(f"the headless parameterNodeWrapper does not know {self.type} (parameter {name})")
        if default is None and not self.is_node:
            default = getattr(owner, name, self.type())
        self.default = default

    def is_in(self, node) -> bool:
        return node.HasNodeReferenceRole(self.name) if self.is_node else node.GetParameter(self.name) != ""

    def read(self, node):
        if self.is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        return text == "True" if self.type is bool else self.type(text)

    def write(self, node, value) -> None:
        if self.is_node:
            if value is not None and not isinstance(value, self.type):
                raise TypeError(f"{self.name} must be a {self.type.__name__}, got {type(value).__name__}")
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            return
        value = self.type(value)
        for validator in self.validators:
            validator.validate(value)
        node.SetParameter(self.name, str(value))


def parameterNodeWrapper(cls: type) -> type:
    """Turn an annotated class into a view of a parameter node."""
    parameters = {
        name: _Parameter(name, annotation, cls)
        for name, annotation in typing.get_type_hints(cls, include_extras=True).items()
    }

    def initialize(self, node, _prefix=None) -> None:
        self.parameterNode = node
        for parameter in parameters.values():
            if not parameter.is_node and not parameter.is_in(node):
                parameter.write(node, parameter.default)

    def connect_gui(self, controls) -> None:
        """Tie each control to the parameter that its SlicerParameterName names, both ways."""
        from .qt_panel import VALUES

        self._controls = {}
        for control in vars(controls).values():
            name = control.property("SlicerParameterName")
            if not name:
                continue
            signal, read, write = next(value for kind, value in VALUES.items() if isinstance(control, kind))

            def edited(*_value, name=name, control=control, read=read) -> None:
                setattr(self, name, read(control))

            getattr(control, signal).connect(edited)
            self._controls[name] = (control, signal, edited, write)
        self._gui_observer = self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_event: show(self))
        show(self)

    def show(self) -> None:
        for name, (control, _signal, _edited, write) in self._controls.items():
            blocked = control.blockSignals(True)
            write(control, getattr(self, name))
            control.blockSignals(blocked)

    def disconnect_gui(self, _tag) -> None:
        self.parameterNode.RemoveObserver(self._gui_observer)
        for control, signal, edited, _write in self._controls.values():
            getattr(control, signal).disconnect(edited)
        self._controls = {}

    cls.__init__ = initialize
    cls.connectGui, cls.disconnectGui = connect_gui, disconnect_gui
    cls.allParameters = parameters
    for parameter in parameters.values():
        setattr(
            cls,
            parameter.name,
            property(
                lambda self, p=parameter: p.read(self.parameterNode),
                lambda self, value, p=parameter: p.write(self.parameterNode, value),
            ),
        )
    cls.StartModify = lambda self: self.parameterNode.StartModify()
    cls.EndModify = lambda self, was_modified: self.parameterNode.EndModify(was_modified)
    cls.AddObserver = lambda self, event, callback, priority=0.0: self.parameterNode.AddObserver(
        event or vtk.vtkCommand.ModifiedEvent, callback, priority
    )
    cls.RemoveObserver = lambda self, tag: self.parameterNode.RemoveObserver(tag)
    cls.Modified = lambda self: self.parameterNode.Modified()
    return cls
