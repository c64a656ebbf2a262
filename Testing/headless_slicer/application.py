"""``slicer.app``, ``slicer.modules``, and what ``slicer.util.loadVolume`` and ``saveScene`` read and write with."""

from __future__ import annotations

import atexit
import importlib.util
import os
import sys
import types
from pathlib import Path

import slicer

from . import parameter_node, scripted_module


class CoreIOManager:
    """The part of ``qSlicerCoreIOManager`` that ``slicer.util`` needs for volumes and scenes."""

    def __init__(self, scene, volumes_logic) -> None:
        self._scene, self._volumes_logic = scene, volumes_logic

    def fileType(self, file_name) -> str:
        return "SceneFile" if str(file_name).endswith((".mrb", ".mrml")) else "VolumeFile"

    def loadNodes(self, file_type, properties, loaded, messages) -> bool:
        path = properties["fileName"]
        if file_type == "SceneFile":
            return bool(self._scene.ReadFromMRB(path, bool(properties.get("clear", True)), messages))
        options = self._volumes_logic.LabelMap if properties.get("labelmap") else 0
        node = self._volumes_logic.AddArchetypeVolume(path, properties.get("name") or Path(path).stem, options)
        if node is not None:
            loaded.AddItem(node)
        return node is not None

    def saveNodes(self, file_type, properties, messages) -> bool:
        if file_type != "SceneFile" or not str(properties["fileName"]).endswith(".mrb"):
            raise NotImplementedError("the headless layer saves scenes as .mrb only")
        return bool(self._scene.WriteToMRB(str(properties["fileName"]), None, messages))


class Application:
    """The part of ``qSlicerApplication`` that LesionDecomp and ``slicer.util`` call."""

    applicationName = "headless Slicer"  # noqa: N815
    majorVersion, minorVersion = 5, 13  # noqa: N815
    applicationVersion = "5.13.0"  # noqa: N815
    revision = "headless"

    def __init__(self, headless_scene, folder: Path) -> None:
        self._headless_scene = headless_scene
        self._io_manager = CoreIOManager(headless_scene.scene, headless_scene.logics["Volumes"])
        self.temporaryPath = str(folder)
        self.slicerUserSettingsFilePath = str(folder / "Slicer.ini")
        self.events_processed = 0

    def applicationLogic(self):
        return self._headless_scene.application_logic

    def mrmlScene(self):
        return self._headless_scene.scene

    def coreIOManager(self) -> CoreIOManager:
        return self._io_manager

    def layoutManager(self) -> None:
        return None

    def testingEnabled(self) -> bool:
        return True

    def translate(self, _context: str, text: str) -> str:
        return text

    def processEvents(self) -> None:
        self.events_processed += 1

    def pauseRender(self) -> None:
        pass

    def resumeRender(self) -> None:
        pass

    def setOverrideCursor(self, _cursor) -> None:
        pass

    def restoreOverrideCursor(self) -> None:
        pass


class ModuleHandle:
    """What ``slicer.modules.NAME`` is: a module's path and logic."""

    def __init__(self, logic=None, path: str = "") -> None:
        self._logic, self.path = logic, path

    def logic(self):
        return self._logic


class HeadlessSlicer:
    """The running application: ``slicer`` with the names a scripted module expects.

    :param folder: for temporary files of the session.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        from LesionDecompMrml.headless_scene import HeadlessScene

        self.folder = Path(folder)
        self.headless_scene = HeadlessScene(self.folder)
        self.scene = self.headless_scene.scene
        slicer.mrmlScene = self.scene
        slicer.app = Application(self.headless_scene, self.folder)
        slicer.modules = types.SimpleNamespace(
            **{name.lower(): ModuleHandle(logic) for name, logic in self.headless_scene.logics.items()}
        )
        slicer.selfTests = {}
        _install("ScriptedLoadableModule", scripted_module)
        _install("parameterNodeWrapper", parameter_node)
        _install("i18n", _i18n())
        _install("packaging", _packaging())

    def load_module(self, path: str | os.PathLike[str]):
        """Load a scripted module's file as the application does, and make its module object.

        :return: the Python module; ``slicer.modules`` then knows it under its lower-case name.
        """
        path = Path(path).resolve()
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
        name = path.stem
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        setattr(slicer.modules, name.lower(), ModuleHandle(path=str(path)))
        parent = types.SimpleNamespace(path=str(path))
        module.headless_module = getattr(module, name)(parent)
        return module

    def clear(self) -> None:
        """Close the scene, as between two patients."""
        self.scene.Clear(False)


_running: HeadlessSlicer | None = None


def boot(folder: str | os.PathLike[str]) -> HeadlessSlicer:
    """Start the application once for the process; later calls return the one that runs."""
    global _running
    if _running is None:
        _running = HeadlessSlicer(folder)
        atexit.register(_running.headless_scene.close)
    return _running


def _install(name: str, module: types.ModuleType) -> None:
    setattr(slicer, name, module)
    sys.modules[f"slicer.{name}"] = module


def _i18n() -> types.ModuleType:
    module = types.ModuleType("slicer.i18n")
    module.tr = lambda text: text
    module.translate = lambda _context, text: text
    return module


def _packaging() -> types.ModuleType:
    """Checks work; installing is refused, since a test must not change its own environment."""
    module = types.ModuleType("slicer.packaging")

    def pip_check(requirements) -> bool:
        names = [requirements] if isinstance(requirements, str) else list(requirements)
        imports = {"scikit-image": "skimage"}
        return all(importlib.util.find_spec(imports.get(name, name)) is not None for name in names)

    def pip_install(requirements, **_options) -> None:
        raise RuntimeError(f"the headless layer does not install packages ({requirements})")

    module.pip_check, module.pip_install = pip_check, pip_install
    return module
