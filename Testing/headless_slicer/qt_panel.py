"""A module's panel made of real Qt controls (PySide6, offscreen), for tests of widget wiring.

Layout, signals, properties and timers are Qt's own. The controls of ctk and MRML, which only the desktop has, are
replaced by small ones with the same properties and signals. How a panel looks and feels has to be tried in Slicer.
"""

from __future__ import annotations

import os
import sys
import time
import types
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets
from shibokensupport import feature

TRUE_PROPERTY = 0x02  # widget.text is a property, as in Slicer's PythonQt
# PySide6 would read the source of every module there is to find those that use it, and stumble over torch's lazy ones.
OURS = ("headless_slicer", "test_", "LesionDecomp", "__main__")
feature._mod_uses_pyside = lambda module: str(vars(module).get("__name__", "")).startswith(OURS)


def application() -> QtWidgets.QApplication:
    """The one application of the process."""
    return QtWidgets.QApplication.instance() or QtWidgets.QApplication([])


class CollapsibleButton(QtWidgets.QGroupBox):
    """ctkCollapsibleButton: a titled section that can be folded away."""

    contentsCollapsed = QtCore.Signal(bool)  # noqa: N815

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._collapsed = False

    def event(self, event) -> bool:
        # The .ui file's properties arrive as dynamic ones.
        if event.type() == QtCore.QEvent.DynamicPropertyChange:
            name = bytes(event.propertyName().data()).decode()
            if name == "text":
                QtWidgets.QGroupBox.setTitle(self, QtCore.QObject.property(self, "text"))
            elif name == "collapsed":
                self._collapsed = bool(QtCore.QObject.property(self, "collapsed"))
        return super().event(event)

    def showEvent(self, event) -> None:
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget) and self._collapsed:
                QtWidgets.QWidget.hide(child)
        if self._collapsed:
            QtWidgets.QWidget.setMaximumHeight(self, 22)
        super().showEvent(event)


class SliderWidget(QtWidgets.QWidget):
    """ctkSliderWidget: a slider beside a spin box, over floating-point numbers."""

    valueChanged = QtCore.Signal(float)  # noqa: N815

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Horizontal, self)
        self._box = QtWidgets.QDoubleSpinBox(self)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._box)
        QtWidgets.QWidget.setFocusProxy(self, self._box)
        self._slider.setRange(0, 1000)
        self._box.valueChanged.connect(self._on_box)
        self._slider.valueChanged.connect(self._on_slider)

    def event(self, event) -> bool:
        if event.type() == QtCore.QEvent.DynamicPropertyChange:
            name = bytes(event.propertyName().data()).decode()
            value = QtCore.QObject.property(self, name)
            setters = {
                "decimals": self._box.setDecimals,
                "singleStep": self._box.setSingleStep,
                "minimum": self._box.setMinimum,
                "maximum": self._box.setMaximum,
                "value": self._box.setValue,
            }
            if name in setters:
                setters[name](value)
        return super().event(event)

    def _on_box(self, value: float) -> None:
        low, high = self._box.minimum(), self._box.maximum()
        blocked = self._slider.blockSignals(True)
        self._slider.setValue(round(1000 * (value - low) / (high - low)) if high > low else 0)
        self._slider.blockSignals(blocked)
        self.valueChanged.emit(value)

    def _on_slider(self, position: int) -> None:
        low, high = self._box.minimum(), self._box.maximum()
        self._box.setValue(low + (high - low) * position / 1000)

    @property
    def value(self) -> float:
        return self._box.value()

    @value.setter
    def value(self, value: float) -> None:
        self._box.setValue(value)


class NodeFilter:
    """qMRMLSortFilterProxyModel: which nodes a selector must not offer.

    :param changed: called when the IDs have changed.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._hidden, self._changed = [], changed

    @property
    def hiddenNodeIDs(self) -> list[str]:
        return self._hidden

    @hiddenNodeIDs.setter
    def hiddenNodeIDs(self, identities: list[str]) -> None:
        self._hidden = list(identities)
        self._changed()


class NodeComboBox(QtWidgets.QComboBox):
    """qMRMLNodeComboBox: the nodes of some classes in the scene."""

    currentNodeChanged = QtCore.Signal(object)  # noqa: N815

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._scene, self._nodes, self._tags = None, [None], []
        self._filter = NodeFilter(self._refill)
        QtWidgets.QComboBox.setSizeAdjustPolicy(self, QtWidgets.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        QtWidgets.QComboBox.setMinimumContentsLength(self, 12)
        self.activated.connect(lambda _index: self.currentNodeChanged.emit(self.currentNode()))

    def setMRMLScene(self, scene) -> None:
        import slicer

        self._scene = scene
        events = (slicer.vtkMRMLScene.NodeAddedEvent, slicer.vtkMRMLScene.NodeRemovedEvent)
        self._tags = [scene.AddObserver(event, lambda *_event: self._refill()) for event in events]
        self._refill()

    def let_go(self) -> None:
        """Stop looking at the scene, as the real one does when it is deleted."""
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._tags = []

    def sortFilterProxyModel(self) -> NodeFilter:
        return self._filter

    def offered(self) -> list[str]:
        """Names of the nodes in the list."""
        return [node.GetName() for node in self._nodes if node is not None]

    def currentNode(self):
        index = QtCore.QObject.property(self, "currentIndex")
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    def setCurrentNode(self, node) -> None:
        """Choose a node, as a person does in the list."""
        if node is not None and node not in self._nodes:
            self._refill()
        index = self._nodes.index(node)
        if index != QtCore.QObject.property(self, "currentIndex"):
            QtWidgets.QComboBox.setProperty(self, "currentIndex", index)
            self.currentNodeChanged.emit(node)

    def _refill(self) -> None:
        if self._scene is None:
            return
        current = self.currentNode()
        classes = QtCore.QObject.property(self, "nodeTypes") or []
        nodes = []
        for name in [classes] if isinstance(classes, str) else classes:
            found = [self._scene.GetNthNodeByClass(n, name) for n in range(self._scene.GetNumberOfNodesByClass(name))]
            exact = QtCore.QObject.property(self, "showChildNodeTypes") is False
            nodes += [node for node in found if not exact or node.GetClassName() == name]
        nodes = [node for node in nodes if node.GetID() not in self._filter.hiddenNodeIDs]
        self._nodes = [None, *nodes]
        blocked = self.blockSignals(True)
        self.clear()
        none = QtCore.QObject.property(self, "noneDisplay") or "Select a volume"
        self.addItems([none, *(node.GetName() for node in nodes)])
        QtCore.QObject.setProperty(self, "currentIndex", self._nodes.index(current) if current in self._nodes else 0)
        self.blockSignals(blocked)
        if current not in self._nodes:
            self.currentNodeChanged.emit(None)


class MRMLWidget(QtWidgets.QWidget):
    """qMRMLWidget: hands the scene on to the controls that need it."""

    def setMRMLScene(self, scene) -> None:
        for control in self.findChildren(QtWidgets.QWidget):
            if hasattr(control, "setMRMLScene"):
                control.setMRMLScene(scene)


STAND_INS = {
    "ctkCollapsibleButton": CollapsibleButton,
    "ctkSliderWidget": SliderWidget,
    "qMRMLNodeComboBox": NodeComboBox,
    "qMRMLWidget": MRMLWidget,
}
# What a parameter is shown as: control -> the types it can hold, its signal, how it is read and how it is set.
VALUES: dict[type, tuple[tuple[type, ...], str, Callable[[Any], Any], Callable[[Any, Any], None]]] = {
    NodeComboBox: ((), "currentNodeChanged", NodeComboBox.currentNode, NodeComboBox.setCurrentNode),
    SliderWidget: ((float, int), "valueChanged", lambda c: c.value, lambda c, v: setattr(c, "value", v)),
    QtWidgets.QCheckBox: (
        (bool,),
        "stateChanged",
        lambda c: c.property("checked"),
        lambda c, v: c.setProperty("checked", v),
    ),
    QtWidgets.QSpinBox: (
        (int,),
        "valueChanged",
        lambda c: c.property("value"),
        lambda c, v: c.setProperty("value", v),
    ),
}


class Loader(QtUiTools.QUiLoader):
    """Reads the .ui file, with stand-ins for the controls that only Slicer has."""

    def createWidget(self, class_name, parent=None, name=""):
        kind = STAND_INS.get(class_name)
        if kind is None:
            return super().createWidget(class_name, parent, name)
        widget = kind(parent)
        QtCore.QObject.setObjectName(widget, name)
        return widget


def load_ui(path: str) -> QtWidgets.QWidget:
    """``slicer.util.loadUI``."""
    application()
    # Qt looks for signals in C++: those of the stand-ins are wired by hand (:class:`MRMLWidget`).
    tree = ElementTree.parse(path)
    tree.getroot().remove(tree.getroot().find("connections"))
    data = QtCore.QBuffer()
    data.setData(ElementTree.tostring(tree.getroot()))
    data.open(QtCore.QIODevice.ReadOnly)
    widget = Loader().load(data, None)
    assert widget is not None, f"Qt cannot read {path}"
    return widget


def child_controls(widget: QtWidgets.QWidget) -> types.SimpleNamespace:
    """``slicer.util.childWidgetVariables``: children by name."""
    children = [child for child in widget.findChildren(QtCore.QObject) if child.property("objectName")]
    return types.SimpleNamespace(**{child.property("objectName"): child for child in children})


def connect(sender: QtCore.QObject, signal: str, slot: Callable) -> None:
    """``LesionDecompPanel.signals.connect`` in PySide6's words; the signal must exist with these very arguments."""
    known = sender.metaObject().indexOfSignal(signal)
    assert known >= 0, f"{type(sender).__name__} has no signal {signal}"
    getattr(sender, signal.partition("(")[0]).connect(slot)


def wait_for(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    """Let Qt's event loop run until something has happened."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        application().processEvents(QtCore.QEventLoop.AllEvents, 20)
        time.sleep(0.005)


def choose(box: QtWidgets.QComboBox, value: Any) -> None:
    """Choose an entry of a combo box by its value, as a person does."""
    index = next(n for n in range(box.count()) if box.itemData(n) == value)
    box.setProperty("currentIndex", index)


def click(button: QtWidgets.QAbstractButton) -> None:
    """Press a button, which must be possible."""
    assert button.property("enabled"), button.property("toolTip")
    button.click()


def text_of(control: QtWidgets.QWidget) -> str:
    """What a control states."""
    return control.property("text")


def drag(panel, threshold: float) -> None:
    """Move the threshold slider, and let the lesions follow, as they do before the next frame is drawn."""
    panel.ui.thresholdSlider.value = threshold
    panel.panel.look.steps.flush()


def cells(table: QtWidgets.QTableWidget) -> list[list[str]]:
    """What a table states."""
    rows, columns = table.property("rowCount"), table.property("columnCount")
    return [[table.item(row, column).text() for column in range(columns)] for row in range(rows)]


class Parent(QtWidgets.QWidget):
    """The module panel's own widget."""

    isEntered = True  # noqa: N815

    def __init__(self) -> None:
        super().__init__()
        self._layout = QtWidgets.QVBoxLayout(self)

    def layout(self):
        return self._layout


def install(folder: Path) -> None:
    """Offer the module ``qt``; settings go into ``folder``."""
    application()
    for scope in (QtCore.QSettings.UserScope, QtCore.QSettings.SystemScope):
        QtCore.QSettings.setPath(QtCore.QSettings.IniFormat, scope, str(folder))
    QtCore.QSettings.setDefaultFormat(QtCore.QSettings.IniFormat)
    QtCore.QCoreApplication.setOrganizationName("Tests")
    QtCore.QCoreApplication.setApplicationName("Tests")
    qt = types.ModuleType("qt")
    # Names are looked up when they are used: PySide6 makes its classes on demand.
    places = (QtCore, QtGui, QtWidgets)
    qt.__getattr__ = lambda name: getattr(next((p for p in places if hasattr(p, name)), QtWidgets), name)
    sys.modules["qt"] = qt


def open_panel(module, monkeypatch, folder: Path):
    """Make a module's widget, set up and entered.

    :param folder: for the settings of the session.
    """
    import slicer

    install(folder)
    import LesionDecompPanel.signals

    monkeypatch.setattr(LesionDecompPanel.signals, "connect", connect)
    folder_of_panel = Path(LesionDecompPanel.signals.__file__).parent
    names = [f"LesionDecompPanel.{file.stem}" for file in folder_of_panel.glob("*.py") if file.stem != "__init__"]
    for name in names:
        feature.set_selection(TRUE_PROPERTY, name)
        imported = __import__(name, fromlist=["connect"])
        if hasattr(imported, "connect"):
            monkeypatch.setattr(imported, "connect", connect)
    feature.set_selection(TRUE_PROPERTY, module.__name__)
    monkeypatch.setattr(module, "qt", sys.modules["qt"])
    monkeypatch.setattr(slicer.util, "loadUI", load_ui)
    monkeypatch.setattr(slicer.util, "childWidgetVariables", child_controls)
    widget = module.LesionDecompWidget(Parent())
    widget.setup()
    widget.enter()
    return widget


def close_panel(widget) -> None:
    """What the application does when the module's widget is deleted."""
    widget.cleanup()
    for control in widget.parent.findChildren(NodeComboBox):
        control.let_go()
