"""Stand-ins for the controls of a module panel, read from its .ui file: for tests of widget wiring.

They hold values and call what is connected to them, and nothing else: no Qt, no painting, no layout. That a panel works
with them says that its Python is wired up; how it looks and feels has to be tried in Slicer.
"""

from __future__ import annotations

import types
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

VALUE_SIGNALS = {
    "qMRMLNodeComboBox": "currentNode",
    "ctkSliderWidget": "value",
    "QCheckBox": "checked",
}


class Control:
    """One control; a method that this class lacks is missing from the real one's everyday use as well."""

    def __init__(self, class_name: str, name: str, properties: dict[str, str]) -> None:
        self.class_name, self.objectName = class_name, name
        self._properties = properties
        self._slots: dict[str, list[Callable]] = {}
        self._edited: Callable[[], None] | None = None
        self.enabled = properties.get("enabled") != "false"
        self.visible = True
        self.text, self.toolTip = properties.get("text", ""), properties.get("toolTip", "")
        self.value: float | None = None
        self.checked = properties.get("checked") == "true"
        self.node = None
        self.items: list[tuple[str, Any]] = []
        self.count, self.currentIndex = 0, -1
        self.maximum = 100
        self._blocked = False

    # What a person does.
    def click(self) -> None:
        assert self.enabled, f"{self.objectName} is disabled"
        self._emit("clicked(bool)", False)

    def edit(self, value: Any) -> None:
        """Move a slider, tick a box, choose a node."""
        assert self.enabled, f"{self.objectName} is disabled"
        self.show_parameter(value)
        if self._edited is not None:
            self._edited()

    def choose(self, data: Any) -> None:
        """Choose an entry of a combo box by its data."""
        self.setCurrentIndex(self.findData(data))

    # What the parameter node does.
    def property(self, name: str) -> str | None:
        return self._properties.get(name)

    def on_edited(self, slot: Callable[[], None] | None) -> None:
        self._edited = slot

    def value_for_parameter(self) -> Any:
        return {"currentNode": self.node, "value": self.value, "checked": self.checked}[VALUE_SIGNALS[self.class_name]]

    def show_parameter(self, value: Any) -> None:
        kind = VALUE_SIGNALS[self.class_name]
        if kind == "currentNode":
            self.node = value
        elif kind == "value":
            low, high = float(self._properties.get("minimum", 0)), float(self._properties.get("maximum", 99))
            self.value = min(max(float(value), low), high)
        else:
            self.checked = bool(value)

    # What the module does.
    def connect(self, signal: str, slot: Callable) -> None:
        self._slots.setdefault(signal, []).append(slot)

    def _emit(self, signal: str, *arguments: Any) -> None:
        for slot in [] if self._blocked else list(self._slots.get(signal, ())):
            slot(*arguments)

    def blockSignals(self, blocked: bool) -> bool:
        before, self._blocked = self._blocked, blocked
        return before

    def setVisible(self, visible: bool) -> None:
        self.visible = visible

    def hide(self) -> None:
        self.visible = False

    def setMRMLScene(self, _scene) -> None:
        pass

    def setMRMLTableNode(self, node) -> None:
        self.node = node

    def mrmlTableNode(self):
        return self.node

    def setMaximum(self, maximum: int) -> None:
        self.maximum = maximum

    def setValue(self, value: float) -> None:
        self.value = value

    def addItem(self, text: str, data: Any = None) -> None:
        self.items.append((text, data))
        self.count = len(self.items)
        if self.count == 1:
            self.setCurrentIndex(0)

    def setItemData(self, index: int, _data: Any, _role: int) -> None:
        assert 0 <= index < len(self.items)

    def itemData(self, index: int) -> Any:
        return self.items[index][1]

    def findData(self, data: Any) -> int:
        return next((index for index, item in enumerate(self.items) if item[1] == data), -1)

    def setCurrentIndex(self, index: int) -> None:
        if index != self.currentIndex:
            self.currentIndex = index
            self._emit("currentIndexChanged(int)", index)


class Timer:
    """A timer that rings when the test says so."""

    def __init__(self) -> None:
        self.active, self._slots = False, []

    def setSingleShot(self, _single: bool) -> None:
        pass

    def setInterval(self, _milliseconds: int) -> None:
        pass

    def connect(self, _signal: str, slot: Callable) -> None:
        self._slots.append(slot)

    def start(self) -> None:
        self.active = True

    def stop(self) -> None:
        self.active = False

    def ring(self) -> None:
        assert self.active
        self.active = False
        for slot in self._slots:
            slot()


QT = types.SimpleNamespace(QTimer=Timer, Qt=types.SimpleNamespace(ToolTipRole=3))


def load_ui(path: str) -> Control:
    """The top widget of a .ui file; its children lie in ``children``."""
    tree = ElementTree.parse(path)
    controls = []
    for widget in tree.iter("widget"):
        properties = {p.get("name"): "".join(p.itertext()).strip() for p in widget.findall("property")}
        controls.append(Control(widget.get("class"), widget.get("name"), properties))
    controls[0].children = controls[1:]
    return controls[0]


def child_controls(widget: Control) -> types.SimpleNamespace:
    """Children by name, as ``slicer.util.childWidgetVariables`` gives them."""
    return types.SimpleNamespace(**{control.objectName: control for control in widget.children})


class Parent:
    """The module panel's own widget."""

    isEntered = True  # noqa: N815

    def __init__(self) -> None:
        self.widgets: list[Control] = []

    def layout(self):
        return types.SimpleNamespace(addWidget=self.widgets.append)


def open_panel(module, monkeypatch):
    """Make a module's widget with stand-ins for Qt, set up and entered."""
    import slicer

    monkeypatch.setattr(module, "qt", QT)
    monkeypatch.setattr(slicer.util, "loadUI", load_ui)
    monkeypatch.setattr(slicer.util, "childWidgetVariables", child_controls)
    widget = module.LesionDecompWidget(Parent())
    widget.setup()
    widget.enter()
    return widget
