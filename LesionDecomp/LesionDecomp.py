import importlib.util
import logging
import time
from pathlib import Path
from typing import Annotated

import numpy
import slicer
import vtk
from slicer import vtkMRMLLabelMapVolumeNode, vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

try:  # absent where Slicer runs without its GUI
    import qt
except ImportError:
    qt = None

# The library and its MRML part are imported where they are used: importing this file must stay quick, and must work
# before torch and scikit-image are installed. Annotations are real types here, not strings: the parameter node
# wrapper may read them before Slicer has made this module known under its name.

CITATION = (
    "Yang Y., Chen J., Wang R., Ma T., Wang L., Chen J., Zheng W.-S., Zhang T. "
    "Towards Unbiased COVID-19 Lesion Localisation and Segmentation via Weakly Supervised Learning. "
    "IEEE International Symposium on Biomedical Imaging (ISBI), 2021."
)
RESOURCES = Path(__file__).resolve().parent / "Resources"
SAMPLE_FILE = RESOURCES / "SampleData" / "chest_ct_tumor.nrrd"
SAMPLE_SHA256 = "1aa3e67aa3914fcb90d412a10cd395e324da186d9c9bf90680399c6897628287"
STATISTICS_DELAY_MS = 300  # after the last move of a slider, the table follows


#
# LesionDecomp
#


class LesionDecomp(ScriptedLoadableModule):
    """Heatmap, segmentation and measurement of lung lesions in chest CT."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("LesionDecomp")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["LesionDecomp contributors"]
        self.parent.helpText = _(
            "Finds lung lesions in a chest CT: a heatmap over the CT, lung and lesion labelmaps, a threshold that "
            "can be moved on the finished result, and a table of volumes and densities. The models were trained on "
            "image-level labels only, without outlined lesions.<br><br>"
            "<b>For research use only. Not a medical device; not for diagnosis or treatment.</b><br><br>"
            'See the <a href="https://github.com/lesiondecomp/SlicerLesionDecomp">documentation</a>.'
        )
        self.parent.acknowledgementText = (
            _("If you use this module in research, please cite the method:<br>") + CITATION
        )
        if qt is not None:
            slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Offer the bundled sample CT in the Sample Data module; nothing is downloaded for it."""
    try:
        import SampleData
    except ImportError:
        return
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="LesionDecomp",
        sampleName="LesionDecompChestCT",
        thumbnailFileName=str(RESOURCES / "Icons" / "LesionDecomp.png"),
        uris=SAMPLE_FILE.as_uri(),
        fileNames=SAMPLE_FILE.name,
        checksums=f"SHA256:{SAMPLE_SHA256}",
        nodeNames="LesionDecompChestCT",
    )


#
# LesionDecompParameterNode
#


@parameterNodeWrapper
class LesionDecompParameterNode:
    """What the module panel shows; kept in the scene and saved with it."""

    inputVolume: vtkMRMLScalarVolumeNode
    lungMask: vtkMRMLLabelMapVolumeNode
    model: str = ""  # bundle's name or folder; empty takes the default
    device: str = "auto"
    threshold: Annotated[float, WithinRange(0.01, 1.0)] = 0.4
    minimumVolumeMl: Annotated[float, WithinRange(0.0, 10.0)] = 0.1
    makeSegmentation: bool = False
    overlayVisible: bool = True
    heatmap: vtkMRMLScalarVolumeNode


#
# LesionDecompWidget
#


class LesionDecompWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module panel: choose a CT, press Apply, move the threshold, read the table."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self._running = False
        self._cancelRequested = False
        self._shownLesions = None  # the _lesionState that the scene shows

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/LesionDecomp.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = LesionDecompLogic()

        self._models = self.logic.models()
        for name, description, _threshold in self._models:
            self.ui.modelComboBox.addItem(name, name)
            self.ui.modelComboBox.setItemData(self.ui.modelComboBox.count - 1, description, qt.Qt.ToolTipRole)
        for title, device in ((_("Automatic"), "auto"), (_("CPU"), "cpu"), (_("CUDA GPU"), "cuda"), (_("MPS"), "mps")):
            self.ui.deviceComboBox.addItem(title, device)
        self.ui.progressBar.hide()
        self.ui.cancelButton.hide()
        self._statisticsTimer = qt.QTimer()
        self._statisticsTimer.setSingleShot(True)
        self._statisticsTimer.setInterval(STATISTICS_DELAY_MS)
        self._statisticsTimer.connect("timeout()", self.updateStatistics)

        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.ui.modelComboBox.connect("currentIndexChanged(int)", self.onModelChanged)
        self.ui.deviceComboBox.connect("currentIndexChanged(int)", self.onDeviceChanged)
        self.ui.applyButton.connect("clicked(bool)", self.onApplyButton)
        self.ui.cancelButton.connect("clicked(bool)", self.onCancelButton)
        self.initializeParameterNode()

    def cleanup(self):
        self._cancelRequested = True
        self._statisticsTimer.stop()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        self.initializeParameterNode()

    def exit(self):
        self.setParameterNode(None)

    def onSceneStartClose(self, caller, event):
        self._cancelRequested = True
        self._statisticsTimer.stop()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        """Take the scene's parameter node; where nothing is chosen yet, the default model and the scene's first CT."""
        self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.model and self._models:
            self.chooseModel(self._models[0][0])
        if self._parameterNode.inputVolume is None:
            for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
                isResult = node.GetAttribute("LesionDecomp.threshold") is not None
                if not isResult and not node.IsA("vtkMRMLLabelMapVolumeNode"):
                    self._parameterNode.inputVolume = node
                    break

    def setParameterNode(self, parameterNode):
        """Let go of the parameter node shown so far, and show another, or none."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameterNodeModified)
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self._shownLesions = self._lesionState()
            self._parameterNodeGuiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameterNodeModified)
            self.onParameterNodeModified()

    def onParameterNodeModified(self, caller=None, event=None):
        """Bring panel, lesions and overlay in line with the parameter node."""
        if self._parameterNode is None:
            return
        parameters = self._parameterNode
        self._select(self.ui.modelComboBox, parameters.model)
        self._select(self.ui.deviceComboBox, parameters.device)
        ready = parameters.inputVolume is not None and self.ui.modelComboBox.count > 0 and not self._running
        self.ui.applyButton.enabled = ready
        if self._running:
            self.ui.applyButton.toolTip = _("A run is in progress.")
        elif self.ui.modelComboBox.count == 0:
            self.ui.applyButton.toolTip = _("No model is installed.")
        elif parameters.inputVolume is None:
            self.ui.applyButton.toolTip = _("Choose a chest CT first.")
        else:
            self.ui.applyButton.toolTip = _("Find lesions in the chosen CT.")
        nodes = self.resultNodes()
        self.ui.overlayCheckBox.enabled = nodes is not None
        table = nodes.table if nodes is not None else None
        if self.ui.statisticsTableView.mrmlTableNode() != table:
            self.ui.statisticsTableView.setMRMLTableNode(table)
        if nodes is None or self._running:
            return
        state = self._lesionState()
        if state != self._shownLesions:
            shown, self._shownLesions = self._shownLesions or (None, None, None, None), state
            if state[:3] != shown[:3]:
                self.logic.updateThreshold(nodes.heatmap, state[1], state[2], withStatistics=False)
                self._statisticsTimer.start()
            if state[3] != shown[3]:
                self.logic.setOverlayVisible(nodes.heatmap, state[3])

    def _lesionState(self):
        """What lesions and overlay depend on: heatmap node, threshold, minimum volume, visibility."""
        parameters = self._parameterNode
        if parameters is None or parameters.heatmap is None:
            return None
        identity = parameters.heatmap.GetID()
        return identity, parameters.threshold, parameters.minimumVolumeMl, parameters.overlayVisible

    @staticmethod
    def _select(comboBox, data):
        index = comboBox.findData(data)
        if index >= 0 and index != comboBox.currentIndex:
            blocked = comboBox.blockSignals(True)
            comboBox.setCurrentIndex(index)
            comboBox.blockSignals(blocked)

    def onModelChanged(self, index):
        if self._parameterNode is not None and index >= 0:
            self.chooseModel(self.ui.modelComboBox.itemData(index))

    def chooseModel(self, name):
        """Take a model, and its threshold as long as there is no result that another threshold was chosen for."""
        self._parameterNode.model = name
        threshold = next((threshold for model, _text, threshold in self._models if model == name), None)
        if threshold is not None and self._parameterNode.heatmap is None:
            self._parameterNode.threshold = threshold

    def onDeviceChanged(self, index):
        if self._parameterNode is not None and index >= 0:
            self._parameterNode.device = self.ui.deviceComboBox.itemData(index)

    def resultNodes(self):
        """Nodes of the result shown, or None."""
        heatmap = self._parameterNode.heatmap if self._parameterNode is not None else None
        return self.logic.resultNodes(heatmap)

    def updateStatistics(self):
        """Write the table anew, once the slider has come to rest."""
        nodes = self.resultNodes()
        if nodes is not None and not self._running:
            with slicer.util.tryWithErrorDisplay(_("The statistics could not be updated.")):
                self.logic.updateThreshold(nodes.heatmap, nodes.threshold, nodes.minimum_volume_ml)

    def onCancelButton(self, checked=False):
        self._cancelRequested = True
        self.ui.statusLabel.text = _("Cancelling...")

    def onApplyButton(self, checked=False):
        """Run on the chosen CT; the result replaces the one that the same CT had before."""
        if self._running or self._parameterNode is None:
            return
        with slicer.util.tryWithErrorDisplay(_("The required Python packages could not be installed.")):
            if not self.logic.installMissingPackages():
                return
        from LesionDecompLib.errors import Cancelled, LesionDecompError

        parameters = self._parameterNode
        previous = self.resultNodes()
        if previous is not None and previous.ct != parameters.inputVolume:
            previous = None
        # The sliders may move while the run goes on; the result then follows when it is there.
        threshold, minimumVolumeMl = parameters.threshold, parameters.minimumVolumeMl
        self._setRunning(True)
        status = ""
        try:
            nodes = self.logic.process(
                parameters.inputVolume,
                lungMask=parameters.lungMask,
                model=parameters.model or None,
                threshold=threshold,
                minimumVolumeMl=minimumVolumeMl,
                device=parameters.device,
                heatmapNode=previous.heatmap if previous else None,
                lungsNode=previous.lungs if previous else None,
                lesionsNode=previous.lesions if previous else None,
                tableNode=previous.table if previous else None,
                segmentationNode=(previous.segmentation if previous else None) or parameters.makeSegmentation,
                reportNode=previous.report if previous else None,
                progress=self.onProgress,
                cancelled=self.isCancelled,
            )
        except Cancelled:
            status = _("Cancelled; nothing was changed.")
        except LesionDecompError as error:
            slicer.util.errorDisplay(str(error))
            status = _("Stopped; nothing was changed.")
        else:
            self._shownLesions = (nodes.heatmap.GetID(), threshold, minimumVolumeMl, True)
            parameters.heatmap = nodes.heatmap
            parameters.overlayVisible = True
            self.logic.showResult(nodes.heatmap)
            status = _("Done.")
        finally:
            self._setRunning(False)
            self.ui.statusLabel.text = status

    def _setRunning(self, running):
        self._running = running
        self._cancelRequested = False
        self.ui.progressBar.setValue(0)
        self.ui.progressBar.setVisible(running)
        self.ui.cancelButton.setVisible(running)
        self.ui.inputsCollapsibleButton.enabled = not running
        self.onParameterNodeModified()

    def isCancelled(self):
        return self._cancelRequested

    def onProgress(self, stage, done, total):
        self.ui.progressBar.setMaximum(max(total, 1))
        self.ui.progressBar.setValue(done)
        stages = {
            "lungs": _("Finding the lungs"),
            "heat": _("Making the heatmap"),
            "lesions": _("Outlining lesions"),
            "statistics": _("Measuring"),
        }
        text = _("{stage}: {done} of {total}").format(stage=stages.get(stage, stage), done=done, total=total)
        self.ui.statusLabel.text = text
        slicer.app.processEvents()


#
# LesionDecompLogic
#


class LesionDecompLogic(ScriptedLoadableModuleLogic):
    """Everything the module does, for scripts as for the panel; no GUI needed."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleLogic.__init__(self)
        self._segmenter = None
        self._segmenterKey = None

    def getParameterNode(self):
        return LesionDecompParameterNode(super().getParameterNode())

    def models(self):
        """Installed lesion models as (name, one-line description, default threshold); the default model comes first."""
        from LesionDecompLib.bundles import find_bundle, installed_bundles

        bundles = installed_bundles("lesions")
        if not bundles:
            return []
        default = find_bundle(None, "lesions").name
        models = ((bundle.name, bundle.description, bundle.default_threshold) for bundle in bundles)
        return sorted(models, key=lambda model: model[0] != default)

    def missingPackages(self):
        """Python packages that must be installed before the first run, by their names on PyPI."""
        packages = {"torch": "torch", "skimage": "scikit-image", "scipy": "scipy", "SimpleITK": "SimpleITK"}
        return [name for module, name in packages.items() if importlib.util.find_spec(module) is None]

    def installMissingPackages(self):
        """Install what is missing, after asking once.

        :return: whether everything is there now.
        :raises RuntimeError: the PyTorch extension is missing, or pip failed.
        """
        missing = self.missingPackages()
        if not missing:
            return True
        question = _(
            "LesionDecomp needs these Python packages: {packages}. They will be downloaded and installed, which may "
            "take several minutes. Continue?"
        ).format(packages=", ".join(missing))
        if not slicer.util.confirmOkCancelDisplay(question):
            return False
        logging.info(f"LesionDecomp: installing {', '.join(missing)}")
        if "torch" in missing:
            try:
                import PyTorchUtils
            except ImportError as error:
                raise RuntimeError(
                    _("Install the PyTorch extension with the Extensions Manager, restart Slicer and try again.")
                ) from error
            # The extension picks the build of PyTorch that suits this computer's GPU.
            PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=False)
        others = [name for name in missing if name != "torch"]
        if others:
            # Naming the installed numpy makes pip leave it alone.
            slicer.util.pip_install([*others, f"numpy=={numpy.__version__}"])
        importlib.invalidate_caches()
        return not self.missingPackages()

    def process(
        self,
        inputVolume,
        lungMask=None,
        model=None,
        threshold=None,
        minimumVolumeMl=0.1,
        device="auto",
        heatmapNode=None,
        lungsNode=None,
        lesionsNode=None,
        tableNode=None,
        segmentationNode=None,
        reportNode=None,
        batchSize=8,
        progress=None,
        cancelled=None,
    ):
        """Find the lesions of a chest CT and write heatmap, labelmaps and statistics into the scene.

        :param inputVolume: scalar volume node with a chest CT in HU; it is not changed.
        :param lungMask: labelmap node on the CT's grid (non-zero is lung; 1 right, 2 left), or None to find the lungs.
        :param model: name or folder of a lesion model; None takes the default.
        :param threshold: lesion is where the heat is at least this, 0 to 1; None takes the model's.
        :param minimumVolumeMl: smaller lesions are left out, mL.
        :param device: "auto", "cpu", "cuda", "cuda:N" or "mps". :param batchSize: slices computed at a time.
        :param heatmapNode: scalar volume node to write into; likewise lungsNode and lesionsNode (labelmaps),
            tableNode (table) and reportNode (text). None makes a new node.
        :param segmentationNode: segmentation node to write into; True makes a new one, None or False leaves it out.
        :param progress: called as progress(stage, done, total). :param cancelled: asked often; True ends the run.
        :return: a ``ResultNodes`` with ct, heatmap, lungs, lesions, table, segmentation and report.
        :raises LesionDecompError: input that will not do. :raises Cancelled: by ``cancelled``, or because the input or
            an output node left the scene meanwhile. In both cases the scene is as it was.
        """
        from LesionDecompLib.errors import Cancelled
        from LesionDecompLib.manifest import build_manifest, manifest_text
        from LesionDecompMrml.input_nodes import lung_mask_from_node, volume_from_node
        from LesionDecompMrml.result_nodes import check_outputs, write_result

        started = time.monotonic()
        volume = volume_from_node(inputVolume)
        mask = lung_mask_from_node(lungMask, inputVolume) if lungMask is not None else None
        outputs = {
            "heatmap": heatmapNode,
            "lungs": lungsNode,
            "lesions": lesionsNode,
            "table": tableNode,
            "segmentation": segmentationNode if segmentationNode is not True else None,
            "report_node": reportNode,
        }
        outputs = {name: node or None for name, node in outputs.items()}
        check_outputs(outputs, inputs=(inputVolume, lungMask))
        scene = inputVolume.GetScene()
        result = self.segment(
            volume,
            mask,
            model=model,
            device=device,
            batchSize=batchSize,
            threshold=threshold,
            min_volume_ml=minimumVolumeMl,
            progress=progress,
            cancelled=cancelled,
        )
        # The scene may have been closed, or a node removed, while the work went on.
        if any(scene is None or not scene.IsNodePresent(n) for n in (inputVolume, *outputs.values()) if n is not None):
            raise Cancelled
        parameters = {"device": device, "batch_size": batchSize}
        nodes = write_result(
            inputVolume,
            result,
            with_segmentation=segmentationNode is True,
            report=manifest_text(build_manifest(volume, result, parameters=parameters)),
            **outputs,
        )
        logging.info(
            f"LesionDecomp: segmented '{inputVolume.GetName()}' in {time.monotonic() - started:.1f} s on "
            f"{result.device}, threshold {result.threshold:g}"
        )
        for warning in result.warnings:
            logging.warning(f"LesionDecomp: {warning}")
        return nodes

    def segment(self, volume, lungMask, model=None, device="auto", batchSize=8, **options):
        """From a CT to its result, on arrays alone: the one step that takes long and touches no node.

        Models stay loaded for the next volume.
        """
        key = (model, device, batchSize)
        if self._segmenterKey != key:
            self._segmenter = self.createSegmenter(model, device, batchSize)
            self._segmenterKey = key
        return self._segmenter.run(volume, lung_mask=lungMask, **options)

    def createSegmenter(self, model, device, batchSize):
        """Load the models; they are kept for the following volumes."""
        from LesionDecompLib.pipeline import Segmenter

        return Segmenter(model, device=device, batch_size=batchSize)

    def updateThreshold(self, heatmapNode, threshold=None, minimumVolumeMl=None, withStatistics=True):
        """Make the lesions, and the table, anew from a finished heatmap; quick, no model needed.

        :param heatmapNode: of an earlier :meth:`process`. :param threshold: None keeps the present one.
        :param minimumVolumeMl: smaller lesions are left out, mL; None keeps the present one.
        :return: the result's nodes.
        """
        from LesionDecompMrml.result_nodes import result_of, update_lesions

        nodes = result_of(heatmapNode)
        update_lesions(
            nodes,
            nodes.threshold if threshold is None else threshold,
            nodes.minimum_volume_ml if minimumVolumeMl is None else minimumVolumeMl,
            with_statistics=withStatistics,
        )
        return nodes

    def resultNodes(self, heatmapNode):
        """The nodes that belong to a heatmap node, or None where there is no complete result."""
        from LesionDecompLib.errors import LesionDecompError
        from LesionDecompMrml.result_nodes import result_of

        if heatmapNode is None:
            return None
        try:
            return result_of(heatmapNode)
        except LesionDecompError:
            return None

    def showResult(self, heatmapNode):
        """Show CT, heatmap and lesion outline in the slice views, at the slice with most lesion."""
        from LesionDecompMrml.result_nodes import result_of
        from LesionDecompMrml.views import show_result

        show_result(result_of(heatmapNode))

    def setOverlayVisible(self, heatmapNode, visible):
        """Show or hide heatmap and lesion outline over the CT."""
        from LesionDecompMrml.result_nodes import result_of
        from LesionDecompMrml.views import set_overlay_visible

        set_overlay_visible(result_of(heatmapNode), visible)


#
# LesionDecompTest
#


class LesionDecompTest(ScriptedLoadableModuleTest):
    """Self-test on the bundled sample CT; runs in Slicer's Reload & Test, under CTest and without a GUI."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.test_sampleFromInputToReloadedScene()

    def test_sampleFromInputToReloadedScene(self):
        """The sample CT is segmented, measured, thresholded anew, saved and loaded again."""
        import tempfile

        self.delayDisplay("Loading the sample CT")
        volume = slicer.util.loadVolume(str(SAMPLE_FILE))
        logic = LesionDecompLogic()
        self.assertEqual(logic.missingPackages(), [], "required Python packages are missing")

        self.delayDisplay("Segmenting")
        nodes = logic.process(volume, segmentationNode=True, device="cpu")
        heat, lungs, lesions = (slicer.util.arrayFromVolume(n) for n in (nodes.heatmap, nodes.lungs, nodes.lesions))
        for array in (heat, lungs, lesions):
            self.assertEqual(array.shape, slicer.util.arrayFromVolume(volume).shape)
        self.assertTrue(heat.min() >= 0.0 and heat.max() <= 1.0)
        self.assertEqual(float(heat[lungs == 0].max()), 0.0)
        self.assertFalse((lesions[lungs == 0]).any())
        bothLungs = self.rowOf(nodes.table, "both lungs")
        self.assertTrue(1000.0 < bothLungs["Lung volume (mL)"] < 9000.0)
        self.assertTrue(0.0 < bothLungs["Lesion volume (mL)"] < bothLungs["Lung volume (mL)"])
        voxelMl = numpy.prod(volume.GetSpacing()) / 1000.0
        self.assertAlmostEqual(bothLungs["Lesion volume (mL)"], numpy.count_nonzero(lesions) * voxelMl, places=3)
        self.assertEqual(nodes.segmentation.GetSegmentation().GetNumberOfSegments(), 3)

        self.delayDisplay("Moving the threshold")
        higher = nodes.threshold + (1.0 - nodes.threshold) / 2
        before = numpy.count_nonzero(lesions)
        logic.updateThreshold(nodes.heatmap, higher, minimumVolumeMl=0.0)
        after = slicer.util.arrayFromVolume(nodes.lesions).copy()
        self.assertTrue(numpy.array_equal(after != 0, (heat >= numpy.float32(higher)) & (lungs != 0)))
        self.assertLess(numpy.count_nonzero(after), before)
        figures = self.rowOf(nodes.table, "both lungs")

        self.delayDisplay("Saving and loading the scene")
        heat = heat.copy()
        with tempfile.TemporaryDirectory() as folder:
            scene = str(Path(folder) / "result.mrb")
            self.assertTrue(slicer.util.saveScene(scene))
            heatmapName = nodes.heatmap.GetName()
            del nodes, volume
            slicer.mrmlScene.Clear()
            slicer.util.loadScene(scene)
        nodes = logic.resultNodes(slicer.util.getNode(heatmapName))
        self.assertIsNotNone(nodes)
        self.assertEqual(nodes.threshold, higher)
        self.assertTrue(numpy.array_equal(slicer.util.arrayFromVolume(nodes.heatmap), heat))
        self.assertTrue(numpy.array_equal(slicer.util.arrayFromVolume(nodes.lesions), after))
        for header, value in self.rowOf(nodes.table, "both lungs").items():
            self.assertTrue(numpy.isclose(value, figures[header], rtol=1e-4, equal_nan=True), header)
        self.delayDisplay("Test passed")

    @staticmethod
    def rowOf(tableNode, region):
        """A row of the statistics table as header -> value."""
        names = [tableNode.GetColumnName(column) for column in range(tableNode.GetNumberOfColumns())]
        for row in range(tableNode.GetNumberOfRows()):
            if tableNode.GetCellText(row, 0) == region:
                table = tableNode.GetTable()
                return {n: table.GetColumn(c).GetVariantValue(row).ToDouble() for c, n in enumerate(names) if c > 0}
        raise KeyError(region)
