"""A MRML scene that works without the Slicer application: the logics that a scene needs to read, write and display."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

import slicer
import vtk

# Module name -> logic class, in the order in which they can be made. Colors come before Volumes, which looks for its
# default color nodes when it meets the scene.
LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Units": "vtkSlicerUnitsLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Texts": "vtkSlicerTextsLogic",
}
# Nodes that Slicer's subject hierarchy plugins claim, as far as LesionDecomp makes them.
HIERARCHY_CLASSES = (
    "vtkMRMLVolumeNode",
    "vtkMRMLSegmentationNode",
    "vtkMRMLTableNode",
    "vtkMRMLTextNode",
    "vtkMRMLTransformNode",
)


class HeadlessScene:
    """One MRML scene and the logics around it.

    :param folder: for temporary files; must exist, and outlive the object's reading and writing.

    A context manager: call :meth:`close` otherwise, or the scene outlives its use. ``scene``, ``application_logic`` and
    ``logics`` (module name -> logic) are for reading only.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        # Slicer's logics complain about files of the application (color tables, terminologies) that the wheel lacks.
        warnings = vtk.vtkObject.GetGlobalWarningDisplay()
        vtk.vtkObject.GlobalWarningDisplayOff()
        try:
            self._boot()
        finally:
            vtk.vtkObject.SetGlobalWarningDisplay(warnings)
        self._observers = [
            self.scene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, self._on_node_added),
            self.scene.AddObserver(slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, self._on_node_about_to_be_removed),
        ]

    def __enter__(self) -> HeadlessScene:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Empty the scene and let go of it."""
        for tag in self._observers:
            self.scene.RemoveObserver(tag)
        self._observers = []
        self.scene.Clear(True)

    def _boot(self) -> None:
        self.scene = slicer.vtkMRMLScene()
        version = _slicer_core_version()
        if version:
            self.scene.SetVersion(version)
        self.application_logic = slicer.vtkSlicerApplicationLogic()
        self.application_logic.SetTemporaryPath(str(self.folder))
        # Reading any file, .mrb included, asks the cache manager whether its name is a remote one.
        cache = self.folder / "cache"
        cache.mkdir(exist_ok=True)
        self._remote_io = slicer.vtkMRMLRemoteIOLogic()
        self._remote_io.GetCacheManager().SetRemoteCacheDirectory(str(cache))
        self._data_io = slicer.vtkDataIOManagerLogic()
        self._data_io.SetMRMLApplicationLogic(self.application_logic)
        self._data_io.SetAndObserveDataIOManager(self._remote_io.GetDataIOManager())
        self.application_logic.SetMRMLSceneDataIO(self.scene, self._remote_io, self._data_io)
        self.application_logic.SetMRMLScene(self.scene)
        self.logics = {}
        for name, class_name in LOGICS.items():
            logic = getattr(slicer, class_name)()
            # A logic looks for the application's other logics when it is given its scene.
            logic.SetMRMLApplicationLogic(self.application_logic)
            logic.SetMRMLScene(self.scene)
            self.application_logic.SetModuleLogic(name, logic)
            self.logics[name] = logic
        self.application_logic.SetColorLogic(self.logics["Colors"])

    # In the application, plugins of the subject hierarchy module keep one item for each data node.
    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_node_added(self, scene, _event, node) -> None:
        claimed = any(node.IsA(name) for name in HIERARCHY_CLASSES)
        if not claimed or node.GetHideFromEditors() or scene.IsImporting():
            return
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        if not hierarchy.GetItemByDataNode(node):
            hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_node_about_to_be_removed(self, scene, _event, node) -> None:
        if scene.IsClosing() or node.IsA("vtkMRMLSubjectHierarchyNode"):
            return
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        item = hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.RemoveItem(item, False, False)


def _slicer_core_version() -> str:
    """What a scene file names as its maker; slicer-core's own answer, 4.0.0, passes for that of an ancient Slicer."""
    try:
        major, minor, revision, *_rest = importlib.metadata.version("slicer-core").split(".")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return ""
    return f"slicer-core {major}.{minor}.0 {revision}"
