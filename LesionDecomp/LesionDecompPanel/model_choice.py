"""The model selector: installed bundles, and folders that the user has added, which are remembered."""

from __future__ import annotations

import qt
import slicer
from LesionDecompLib.errors import LesionDecompError
from slicer.i18n import tr as _

from .combo_box import fill, select
from .signals import connect

SETTING = "LesionDecomp/ModelFolders"


class ModelChoice:
    """Which model a run takes.

    :param ui: the panel's controls.
    :param logic: of the module.
    :param chosen: called as ``chosen(key)`` when the user has chosen another one.
    """

    def __init__(self, ui, logic, chosen) -> None:
        self._ui, self._logic, self._chosen = ui, logic, chosen
        self._models: list[tuple[str, str, str, float]] = []
        connect(ui.modelComboBox, "currentIndexChanged(int)", self._on_chosen)
        connect(ui.addModelButton, "clicked(bool)", self._on_add)
        self.refill("")

    @property
    def default(self) -> str:
        """Key of the model to begin with; empty where none is installed."""
        return self._models[0][0] if self._models else ""

    def threshold(self, key: str) -> float | None:
        """A model's own threshold."""
        return next((threshold for k, _name, _text, threshold in self._models if k == key), None)

    def has(self, key: str) -> bool:
        """Whether there is a model of this key."""
        return any(model[0] == key for model in self._models)

    def show(self, key: str) -> None:
        """Select a model; one that is not known, as in a scene from elsewhere, leaves the selector as it is."""
        select(self._ui.modelComboBox, key)
        text = next((text for k, _name, text, _threshold in self._models if k == key), "")
        self._ui.modelDescriptionLabel.text = text

    def refill(self, key: str) -> None:
        """Look for models anew, and select one."""
        self._models = self._logic.models(remembered_folders())
        entries = [(name, k, f"{text}\n{k}" if k != name else text) for k, name, text, _threshold in self._models]
        fill(self._ui.modelComboBox, entries, key or self.default)
        self.show(key or self.default)

    def add_folder(self, folder: str) -> None:
        """Offer the bundle in a folder from now on, and choose it.

        :raises LesionDecompError: no lesion bundle, or a damaged one.
        """
        from LesionDecompLib.models.bundle import ModelBundle

        ModelBundle.load(folder, "lesions")
        folders = remembered_folders()
        if folder not in folders:
            remember_folders([*folders, folder])
        self.refill(folder)
        self._chosen(folder)

    def _on_chosen(self, index: int) -> None:
        if index >= 0:
            self._chosen(self._ui.modelComboBox.itemData(index))

    def _on_add(self, _checked: bool = False) -> None:
        folder = qt.QFileDialog.getExistingDirectory(None, _("Choose a model folder (it holds bundle.json)"))
        if not folder:
            return
        try:
            self.add_folder(str(folder))
        except LesionDecompError as error:
            slicer.util.errorDisplay(str(error))


def remembered_folders() -> list[str]:
    """Model folders that the user has added, as Slicer's settings keep them."""
    value = qt.QSettings().value(SETTING)
    if not value:
        return []
    # A list of one comes back from an .ini file as a string.
    return [value] if isinstance(value, str) else [str(folder) for folder in value]


def remember_folders(folders: list[str]) -> None:
    """Keep the added folders in Slicer's settings."""
    settings = qt.QSettings()
    settings.setValue(SETTING, folders)
    settings.sync()
