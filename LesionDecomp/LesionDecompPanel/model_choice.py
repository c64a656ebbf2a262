"""The model selector: installed bundles, and folders that the user has added, which are remembered."""

from __future__ import annotations

import qt
import slicer
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.models.bundle import ModelBundle
from slicer.i18n import tr as _

from .combo_box import fill, select, silent
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
        self._models: list[tuple[str, ModelBundle]] = []
        connect(ui.modelComboBox, "currentIndexChanged(int)", self._on_chosen)
        connect(ui.addModelButton, "clicked(bool)", self._on_add)
        self.refill("")

    @property
    def default(self) -> str:
        """Key of the model to begin with; empty where none is installed."""
        return self._models[0][0] if self._models else ""

    def threshold(self, key: str) -> float | None:
        """A model's own threshold."""
        return next((bundle.default_threshold for k, bundle in self._models if k == key), None)

    def has(self, key: str) -> bool:
        """Whether there is a model of this key."""
        return any(model[0] == key for model in self._models)

    def show(self, key: str) -> None:
        """Select a model; of one that is not known, as in a scene from elsewhere, none, so that any can be chosen."""
        if self.has(key):
            select(self._ui.modelComboBox, key)
        else:
            with silent(self._ui.modelComboBox) as box:
                box.currentIndex = -1
        bundle = next((bundle for k, bundle in self._models if k == key), None)
        text = training_in_words(bundle) if bundle is not None else ""
        if self._ui.modelDescriptionLabel.text != text:
            self._ui.modelDescriptionLabel.text = text
            self._ui.modelDescriptionLabel.toolTip = bundle.description if bundle is not None else ""

    def refill(self, key: str) -> None:
        """Look for models anew, and select one."""
        self._models = self._logic.models(remembered_folders())
        entries = [(bundle.name, k, _tooltip(k, bundle)) for k, bundle in self._models]
        fill(self._ui.modelComboBox, entries, key or self.default)
        self.show(key or self.default)

    def add_folder(self, folder: str) -> None:
        """Offer the bundle in a folder from now on, and choose it.

        :raises LesionDecompError: no lesion bundle, or a damaged one.
        """
        ModelBundle.load(folder, "lesions")
        remember_folder(folder)
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


def training_in_words(bundle: ModelBundle) -> str:
    """What distinguishes a model from others: training time, training data, how well it did on validation slices."""
    training = bundle.metadata.get("training") or {}
    configuration = training.get("configuration") or {}
    # Settings were not grouped in earlier bundles.
    steps = (configuration.get("schedule") or configuration).get("steps")
    scores = (bundle.metadata.get("metrics") or {}).get("val") or {}
    precision = scores.get("mean_average_precision")
    parts = []
    if steps:
        parts.append(_("{n} training steps").format(n=steps))
    if training.get("data"):
        parts.append(_("data: {name}").format(name=str(training["data"]).partition(":")[0]))
    scored = isinstance(precision, (int, float))
    parts.append(_("validation AP {score:.2f}").format(score=precision) if scored else _("no validation score"))
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."


def _tooltip(key: str, bundle: ModelBundle) -> str:
    lines = [bundle.description, training_in_words(bundle)]
    return "\n".join(lines if key == bundle.name else [*lines, key])


def remember_folder(folder: str) -> None:
    """Offer the bundle in a folder in later sessions too."""
    folders = remembered_folders()
    if folder not in folders:
        remember_folders([*folders, folder])


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
