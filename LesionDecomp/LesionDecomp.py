from pathlib import Path
from typing import Annotated, Union

import slicer
from slicer import vtkMRMLLabelMapVolumeNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLTableNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

try:  # absent where Slicer runs without its GUI
    import qt
except ImportError:
    qt = None

# The packages beside this file are imported where they are used: importing it must stay quick, and must work before
# torch is installed. Annotations are real types: the wrapper may read them before Slicer knows this module's name.

CITATION = (
    "Yang Y., Chen J., Wang R., Ma T., Wang L., Chen J., Zheng W.-S., Zhang T. "
    "Towards Unbiased COVID-19 Lesion Localisation and Segmentation via Weakly Supervised Learning. "
    "IEEE International Symposium on Biomedical Imaging (ISBI), 2021."
)
RESOURCES = Path(__file__).resolve().parent / "Resources"
SAMPLE_FILE = RESOURCES / "SampleData" / "chest_ct_tumor.nrrd"
SAMPLE_SHA256 = "1aa3e67aa3914fcb90d412a10cd395e324da186d9c9bf90680399c6897628287"
PACKAGES = ("LesionDecompLib", "LesionDecompMrml", "LesionDecompPanel")  # beside this file
POLL_MS = 100  # between looks at what the worker has sent


#
# LesionDecomp
#


class LesionDecomp(ScriptedLoadableModule):
    """Heatmap, segmentation and measurement of lung lesions in chest CT."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("LesionDecomp")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.contributors = ["LesionDecomp contributors"]
        self.parent.helpText = _(
            "Finds lung lesions in a chest CT: a heatmap over the CT, lung and lesion labelmaps, a threshold that "
            "can be moved on the finished result, and a table of volumes and densities. The lesion model was trained "
            "on slices labeled lesion or normal, without outlined lesions.<br><br>"
            "<b>For research use only. Not a medical device; not for diagnosis or treatment.</b><br><br>"
            'See the <a href="https://github.com/lesiondecomp/SlicerLesionDecomp">documentation</a>.'
        )
        self.parent.acknowledgementText = _("If you use this module in research, please cite:<br>") + CITATION
        if qt is not None:
            slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Offer the bundled sample CT in the Sample Data module; nothing is downloaded for it."""
    try:
        import SampleData  # another module of Slicer, which may be missing
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

    # Node classes must be concrete: connectGui makes one of each to ask for its class name.
    inputVolume: vtkMRMLScalarVolumeNode
    lungMask: Union[vtkMRMLLabelMapVolumeNode, vtkMRMLSegmentationNode, None]  # noqa: UP007 (older Slicers' wrapper)
    lungSegments: str = ""  # JSON: whose segments, and their IDs; empty takes those that are called lung
    model: str = ""  # bundle's name or folder; empty takes the default
    device: str = "auto"
    batchSize: Annotated[int, WithinRange(1, 64)] = 8
    threshold: Annotated[float, WithinRange(0.01, 1.0)] = 0.4
    minimumVolumeMl: Annotated[float, WithinRange(0.0, 10.0)] = 0.1
    makeSegmentation: bool = False
    makeHealthy: bool = False
    heatmapOutput: vtkMRMLScalarVolumeNode  # outputs to write into; none takes the CT's earlier ones, or new ones
    lungsOutput: vtkMRMLLabelMapVolumeNode
    lesionsOutput: vtkMRMLLabelMapVolumeNode
    tableOutput: vtkMRMLTableNode
    segmentationOutput: vtkMRMLSegmentationNode
    heatmap: vtkMRMLScalarVolumeNode  # of the result shown
    earlierHeatmap: vtkMRMLScalarVolumeNode  # of the result that it is compared with
    regions: Union[vtkMRMLLabelMapVolumeNode, vtkMRMLSegmentationNode, None]  # noqa: UP007 (older Slicers' wrapper)
    overlayVisible: bool = True
    overlayOpacity: Annotated[float, WithinRange(0.0, 1.0)] = 0.5
    outlineVisible: bool = True
    legendVisible: bool = True
    surfacesVisible: bool = False


#
# LesionDecompWidget
#


class LesionDecompWidget(ScriptedLoadableModuleWidget):
    """The module panel: choose a CT, press Apply, move the threshold, read the table. ``panel`` does the work."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        self.logic = None
        self.panel = None

    def setup(self):
        from LesionDecompPanel.panel import Panel  # not before: Slicer starts without it

        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/LesionDecomp.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = LesionDecompLogic()
        self.panel = Panel(self.ui, self.logic, lambda: self.parent.isEntered)

    def cleanup(self):
        if self.panel is not None:
            self.panel.cleanup()

    def onReload(self):
        """Reload the module's packages too; Slicer itself reloads only this file."""
        from LesionDecompPanel.reloading import forget_packages  # not before: Slicer starts without it

        forget_packages(PACKAGES)
        ScriptedLoadableModuleWidget.onReload(self)

    def enter(self):
        self.panel.enter()

    def exit(self):
        """Leave the panel; a run goes on, and its result is shown when it is there."""
        self.panel.exit()


#
# LesionDecompLogic
#


class LesionDecompLogic(ScriptedLoadableModuleLogic):
    """Everything the module does, for scripts as well as for the panel; it needs no GUI. See :meth:`result`, too."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleLogic.__init__(self)
        self._segmenter = None
        self._segmenterKey = None
        self._result = None  # the one asked for last: what its slider needs is prepared once

    def getParameterNode(self):
        """The scene's parameter node, typed."""
        return LesionDecompParameterNode(super().getParameterNode())

    def models(self, folders=()):
        """Lesion models as (name or folder, bundle): the default first, those in ``folders`` last."""
        from LesionDecompMrml.models import offered_models  # not before: Slicer starts without it

        return offered_models(folders)

    def missingPackages(self):
        """Python packages that must be installed before the first run, by their names on PyPI."""
        from LesionDecompPanel.packages import missing_packages  # not before: Slicer starts without it

        return missing_packages()

    def installMissingPackages(self):
        """Install what is missing, after asking once; returns whether everything is there, raises RuntimeError."""
        from LesionDecompPanel.packages import install_missing_packages  # not before: Slicer starts without it

        return install_missing_packages(self.missingPackages)

    def process(self, inputVolume, lungMask=None, options=None, progress=None, cancelled=None, **keywords):
        """Find the lesions of a chest CT, write heatmap, labelmaps and statistics into the scene, and show them.

        :param inputVolume: scalar volume node with a chest CT in HU; its voxels are not changed.
        :param options: a ``RunOptions`` (LesionDecompMrml/run_options.py), which explains all of them.
        :param progress: called as progress(stage, done, total); cancelled() is asked often, True ends the run.
        :param keywords: single options, as threshold=0.3. A result that is written into loses its review, unasked.
        :return: a ``ResultNodes`` with ct, heatmap, lungs, lesions, table, segmentation and report.
        :raises LesionDecompError: unsuitable input.
        :raises Cancelled: by ``cancelled``, or because a node that is needed left the scene. The scene is as it was.
        """
        from LesionDecompMrml.run_options import RunOptions  # not before: Slicer starts without it
        from LesionDecompMrml.segmentation_run import process_here

        options = RunOptions.of(options, lungMask, keywords)
        nodes = process_here(inputVolume, options, self.segment, progress=progress, cancelled=cancelled)
        self.present(nodes)
        return nodes

    def startProcess(
        self,
        inputVolume,
        lungMask=None,
        options=None,
        onProgress=None,
        onDone=None,
        onFailed=None,
        onCancelled=None,
        **keywords,
    ):
        """Start what :meth:`process` does in a worker process, and return at once; results and options are the same.

        :param onProgress: called as onProgress(step), with stage, done, total and seconds_left.
        :param onDone: called as onDone(nodes) at the end; onFailed(error) and onCancelled() are called instead if it
            fails or is cancelled, as it is when the scene is closed or a node it needs is removed.
        :return: a ``SegmentationRun``: cancel(), is_running and, for scripts without an event loop, wait().
        :raises LesionDecompError: unsuitable input; nothing has been started then.
        """
        from LesionDecompMrml.run_options import RunOptions  # not before: Slicer starts without it
        from LesionDecompMrml.segmentation_run import Listeners, start_run

        listeners = Listeners(onProgress, (onDone, self.present), onFailed, onCancelled)
        return start_run(inputVolume, RunOptions.of(options, lungMask, keywords), listeners, self.every)

    def present(self, nodes):
        """Leave the scene as Apply leaves it: the result is selected in the panel and shown in the views."""
        from LesionDecompMrml.shown_result import select_result  # not before: Slicer starts without it

        parameters = self.getParameterNode()
        select_result(parameters, self.result(nodes.heatmap))
        if slicer.app.layoutManager() is not None:
            from LesionDecompPanel.look_section import show_as_chosen  # not before: Slicer starts without it

            show_as_chosen(self.result(nodes.heatmap), parameters)

    @staticmethod
    def every(callback):
        """Call back regularly from Qt's event loop; without Qt the run's caller polls. Returns what stops it."""
        if qt is None:
            return lambda: None
        from LesionDecompPanel.signals import call_every  # not before: Slicer starts without it

        return call_every(POLL_MS, callback)

    def segment(self, volume, lungMask, model=None, device="auto", batchSize=8, engine="auto", **options):
        """From a CT to its result, on arrays alone; models stay loaded for the next volume."""
        key = (model, device, batchSize, engine)
        if self._segmenterKey != key:
            self._segmenter = self.createSegmenter(*key)
            self._segmenterKey = key
        return self._segmenter.run(volume, lung_mask=lungMask, **options)

    def createSegmenter(self, model, device, batchSize, engine="auto"):
        """Load the models; they are kept for the following volumes."""
        from LesionDecompLib.pipeline import Segmenter  # not before: Slicer starts without it

        return Segmenter(model, device=device, batch_size=batchSize, engine=engine)

    def result(self, heatmapNode):
        """The ``Result`` of a heatmap node; raises LesionDecompError where there is no complete one."""
        from LesionDecompMrml.result import Result  # not before: Slicer starts without it

        result = Result.of(heatmapNode)
        if self._result is None or not self._result.is_of(result.nodes):
            self._result = result
        return self._result

    def forgetResult(self):
        """Release what the last result's slider works on."""
        self._result = None

    def resultNodes(self, heatmapNode):
        """The nodes that belong to a heatmap node, or None where there is no complete result."""
        from LesionDecompMrml.result_nodes import complete_result  # not before: Slicer starts without it

        return complete_result(heatmapNode)

    def updateThreshold(self, heatmapNode, threshold=None, minimumVolumeMl=None, withStatistics=True):
        """``result(heatmapNode).set_threshold(...)`` for scripts, the panel's sliders follow; returns its nodes."""
        result, parameters = self.result(heatmapNode), self.getParameterNode()
        result.set_threshold(threshold, minimumVolumeMl, with_statistics=withStatistics)
        if parameters.heatmap == heatmapNode:
            parameters.threshold, parameters.minimumVolumeMl = result.nodes.on_sliders
        return result.nodes

    def compareResults(self, earlier, later, **listeners):
        """Start comparing two results, given by their heatmap nodes, and return at once; see ``compare_results``."""
        from LesionDecompMrml.comparison_run import compare_results  # not before: Slicer starts without it

        return compare_results(earlier, later, self.every, **listeners)

    def startTraining(self, dataFolder, outputFolder, onProgress=None, onEnd=None, **settings):
        """Start training a model in a process of its own, and return at once; other modules can be used meanwhile.

        :param settings: see ``start`` in LesionDecompMrml/training.py.
        :param onProgress: called as onProgress(run) whenever the training has progressed; onEnd(run) at the end.
        :return: a ``TrainingRun``: state, step, log, error, bundle, stop(), kill() and, for scripts without an event
            loop, wait(). It is kept for the session: :meth:`trainings`.
        :raises LesionDecompError: settings or data that cannot work; nothing has been started then.
        """
        from LesionDecompMrml import training  # not before: Slicer starts without it

        run = training.start(dataFolder, outputFolder, **settings)
        training.watch(run, self.every, onProgress, (self.offerModel, onEnd))
        return run

    def trainings(self):
        """The trainings of this session, running and ended, the latest last; they outlive the panel."""
        from LesionDecompLib.processes.training_run import trainings  # not before: Slicer starts without it

        return trainings()

    def offerModel(self, run):
        """Remember the model of a finished training, so that the model selector offers it, in later sessions too."""
        if run.bundle is not None and qt is not None:
            from LesionDecompPanel.model_choice import remember_folder  # not before: Slicer starts without it

            remember_folder(str(run.bundle))


#
# LesionDecompTest
#


class LesionDecompTest(ScriptedLoadableModuleTest):
    """Self-test on the bundled sample CT; runs in Slicer's Reload & Test, under CTest and without a GUI."""

    def runTest(self):
        slicer.mrmlScene.Clear()
        self.test_sampleFromInputToReloadedScene()

    def test_sampleFromInputToReloadedScene(self):
        """The sample CT is segmented, measured, thresholded anew, saved and loaded again."""
        from LesionDecompMrml.self_test import run_self_test  # not before: Slicer starts without it

        run_self_test(self, LesionDecompLogic(), SAMPLE_FILE)
