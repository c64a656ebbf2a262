import logging
import sys
import time
from pathlib import Path
from typing import Annotated, Union

import numpy
import slicer
import vtk
from slicer import (
    vtkMRMLLabelMapVolumeNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTableNode,
)
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
POLL_MS = 100  # between looks at what the worker has said
PACKAGES = ("LesionDecompLib", "LesionDecompMrml", "LesionDecompPanel")  # beside this file


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

    # Node classes must be concrete: connectGui makes one of each to ask for its class name.
    inputVolume: vtkMRMLScalarVolumeNode
    lungMask: Union[vtkMRMLLabelMapVolumeNode, vtkMRMLSegmentationNode, None]  # noqa: UP007 (older Slicers' wrapper)
    lungSegments: str = ""  # JSON list of segment IDs; empty takes those that are called lung
    model: str = ""  # bundle's name or folder; empty takes the default
    device: str = "auto"
    batchSize: Annotated[int, WithinRange(1, 64)] = 8
    threshold: Annotated[float, WithinRange(0.01, 1.0)] = 0.4
    minimumVolumeMl: Annotated[float, WithinRange(0.0, 10.0)] = 0.1
    makeSegmentation: bool = False
    heatmapOutput: vtkMRMLScalarVolumeNode  # outputs to write into; none takes the CT's earlier ones, or new ones
    lungsOutput: vtkMRMLLabelMapVolumeNode
    lesionsOutput: vtkMRMLLabelMapVolumeNode
    tableOutput: vtkMRMLTableNode
    segmentationOutput: vtkMRMLSegmentationNode
    heatmap: vtkMRMLScalarVolumeNode  # of the result shown
    overlayVisible: bool = True
    overlayOpacity: Annotated[float, WithinRange(0.0, 1.0)] = 0.5
    outlineVisible: bool = True
    legendVisible: bool = True
    surfacesVisible: bool = False


#
# LesionDecompWidget
#


class LesionDecompWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module panel: choose a CT, press Apply, move the threshold, read the table.

    Each part of the panel is a class of LesionDecompPanel; they share the controls and the parameter node.
    """

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.sections = []
        self._parameterNode = None
        self._parameterNodeGuiTag = None

    def setup(self):
        from LesionDecompPanel.export_section import ExportSection
        from LesionDecompPanel.look_section import LookSection
        from LesionDecompPanel.run_section import RunSection
        from LesionDecompPanel.train_section import TrainSection

        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/LesionDecomp.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = LesionDecompLogic()
        self.look = LookSection(self.ui, self.logic, self.recomputeFromLungs)
        self.run = RunSection(self.ui, self.logic, self.look.show)
        # Each has set_parameter_node(parameters or None), refresh() and cleanup().
        self.export = ExportSection(self.ui, self.logic, self.look.nodes)
        self.train = TrainSection(self.ui, self.logic, self.run.models)
        self.sections = [self.run, self.look, self.export, self.train]
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.initializeParameterNode()

    def cleanup(self):
        self.setParameterNode(None)
        for section in self.sections:
            section.cleanup()
        self.removeObservers()

    def onReload(self):
        """Reload the module's packages too; Slicer itself reloads only this file."""
        for name in list(sys.modules):
            if name.partition(".")[0] in PACKAGES:
                del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def enter(self):
        self.initializeParameterNode()
        self.run.enter()

    def exit(self):
        """Leave the panel; a run goes on, and its result is shown when it is there."""
        if not self.run.is_running:
            self.setParameterNode(None)

    def onSceneStartClose(self, caller, event):
        """The scene goes: end the run, and let go of its nodes."""
        self.run.cancel()
        self.look.cleanup()
        self.setParameterNode(None)
        self.logic.forgetLive()

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, caller, event):
        """A scene was loaded: its parameter node may be another one, with a result."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        """Take the scene's parameter node; where no CT is selected yet, select the scene's first one."""
        from LesionDecompMrml.scene_nodes import chest_volumes

        self.setParameterNode(self.logic.getParameterNode())
        volumes = chest_volumes(slicer.mrmlScene)
        if volumes and self._parameterNode.inputVolume is None:
            self._parameterNode.inputVolume = volumes[0]

    def setParameterNode(self, parameterNode):
        """Disconnect from the present parameter node, and connect to another one or to none."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameterNodeModified)
        self._parameterNode = parameterNode
        for section in self.sections:
            section.set_parameter_node(parameterNode)
        if parameterNode is not None:
            self._parameterNodeGuiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameterNodeModified)
        self.onParameterNodeModified()

    def onParameterNodeModified(self, caller=None, event=None):
        """Update panel, lesions and views from the parameter node."""
        for section in self.sections:
            section.refresh()

    def recomputeFromLungs(self, nodes):
        """Run again on a result's CT, with its lungs as the user has edited them."""
        self._parameterNode.inputVolume = nodes.ct
        self.run.start(edited_lungs=nodes.segmentation or nodes.lungs)


#
# LesionDecompLogic
#


class LesionDecompLogic(ScriptedLoadableModuleLogic):
    """Everything the module does, for scripts as well as for the panel; it needs no GUI."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleLogic.__init__(self)
        self._segmenter = None
        self._segmenterKey = None
        self._live = None  # of the result whose threshold moved last

    def getParameterNode(self):
        """The scene's parameter node, typed."""
        return LesionDecompParameterNode(super().getParameterNode())

    def models(self, folders=()):
        """Lesion models as (name or folder, name, one-line description, default threshold); the default comes first.

        :param folders: bundles to offer beside the installed ones and those trained in this session; folders without
            a valid bundle are left out.
        """
        from LesionDecompLib.errors import LesionDecompError
        from LesionDecompLib.models.bundle import ModelBundle, find_bundle, installed_bundles

        trained = [str(run.bundle) for run in self.trainings() if run.bundle is not None]
        models = [(bundle.name, bundle) for bundle in installed_bundles("lesions")]
        if models:
            default = find_bundle(None, "lesions").name
            models.sort(key=lambda model: model[0] != default)
        for folder in dict.fromkeys([*map(str, folders), *trained]):
            try:
                models.append((str(folder), ModelBundle.load(folder, "lesions")))
            except LesionDecompError as error:
                logging.warning(f"LesionDecomp: {error}")
        return [(key, bundle.name, bundle.description, bundle.default_threshold) for key, bundle in models]

    def missingPackages(self):
        """Python packages that must be installed before the first run, by their names on PyPI."""
        from LesionDecompPanel.packages import missing_packages

        return missing_packages()

    def installMissingPackages(self):
        """Install what is missing, after asking once.

        :return: whether everything is there now.
        :raises RuntimeError: the PyTorch extension is missing, or pip failed.
        """
        from LesionDecompPanel.packages import install_missing_packages

        return install_missing_packages(self.missingPackages)

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
        lungSegments=None,
    ):
        """Find the lesions of a chest CT and write heatmap, labelmaps and statistics into the scene.

        It returns when all is done; :meth:`startProcess` does the same work without blocking.

        :param inputVolume: scalar volume node with a chest CT in HU; it is not changed.
        :param lungMask: labelmap node on the CT's grid (non-zero is lung; 1 right, 2 left) or segmentation node; None
            finds the lungs.
        :param lungSegments: IDs of the segmentation's segments that are lung; None takes those that are called lung.
        :param model: name or folder of a lesion model; None takes the default.
        :param threshold: lesion is where the heat is at least this, 0 to 1; None takes the model's.
        :param minimumVolumeMl: smaller lesions are left out, mL.
        :param device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        :param batchSize: slices computed at a time.
        :param heatmapNode: scalar volume node to write into; likewise lungsNode and lesionsNode (labelmaps),
            tableNode (table) and reportNode (text). None makes a new node.
        :param segmentationNode: segmentation node to write into; True makes a new one, None or False leaves it out.
        :param progress: called as progress(stage, done, total).
        :param cancelled: asked often; True ends the run.
        :return: a ``ResultNodes`` with ct, heatmap, lungs, lesions, table, segmentation and report.
        :raises LesionDecompError: unsuitable input.
        :raises Cancelled: by ``cancelled``, or because the input or an output node left the scene meanwhile. In both
            cases the scene is as it was.
        """
        from LesionDecompLib.report.manifest import build_manifest, manifest_text

        started = time.monotonic()
        outputs = self._outputs(heatmapNode, lungsNode, lesionsNode, tableNode, segmentationNode, reportNode)
        request = self._request(inputVolume, lungMask, lungSegments, outputs, segmentationNode is True)
        result = self.segment(
            request.volume,
            request.mask,
            model=model,
            device=device,
            batchSize=batchSize,
            threshold=threshold,
            min_volume_ml=minimumVolumeMl,
            progress=progress,
            cancelled=cancelled,
        )
        parameters = {"device": device, "batch_size": batchSize}
        nodes = request.write(result, manifest_text(build_manifest(request.volume, result, parameters=parameters)))
        self._logRun(result, time.monotonic() - started)
        return nodes

    def startProcess(
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
        lungSegments=None,
        onProgress=None,
        onDone=None,
        onFailed=None,
        onCancelled=None,
        lungsAreEdited=False,
    ):
        """Start what :meth:`process` does in a worker process, and return at once; results and parameters are the same.

        :param onProgress: called as onProgress(step), with stage, done, total and seconds_left.
        :param onDone: called as onDone(nodes) at the end; onFailed(error) and onCancelled() are called instead if it
            fails or is cancelled, as it is when the scene is closed or a node it needs is removed.
        :param lungsAreEdited: the lung mask is an output of an earlier run, edited since; it may be written again.
        :return: a ``SegmentationRun`` with ``cancel()``, ``is_running`` and, for scripts without an event loop,
            ``wait()``.
        :raises LesionDecompError: unsuitable input; nothing has been started then.
        """
        from LesionDecompLib.processes.job_files import JobParameters
        from LesionDecompMrml.segmentation_run import Listeners, SegmentationRun
        from LesionDecompMrml.slicer_python import slicer_python

        started = time.monotonic()
        outputs = self._outputs(heatmapNode, lungsNode, lesionsNode, tableNode, segmentationNode, reportNode)
        request = self._request(
            inputVolume, lungMask, lungSegments, outputs, segmentationNode is True, maskIsOutput=lungsAreEdited
        )
        parameters = JobParameters(
            lesion_model=str(model) if model else None,
            device=device,
            batch_size=int(batchSize),
            threshold=None if threshold is None else float(threshold),
            min_volume_ml=float(minimumVolumeMl),
        )

        def done(nodes):
            logging.info(
                f"LesionDecomp: segmented in {time.monotonic() - started:.1f} s, threshold {nodes.threshold:g}"
            )
            if onDone is not None:
                onDone(nodes)

        return SegmentationRun(
            request,
            parameters,
            Listeners(progress=onProgress, done=done, failed=onFailed, cancelled=onCancelled),
            python=slicer_python(),
            temporary_folder=slicer.app.temporaryPath or None,
            every=self.every,
        )

    @staticmethod
    def _outputs(heatmap, lungs, lesions, table, segmentation, report):
        return {
            "heatmap": heatmap,
            "lungs": lungs,
            "lesions": lesions,
            "table": table,
            "segmentation": segmentation if segmentation is not True else None,
            "report_node": report,
        }

    @staticmethod
    def _request(inputVolume, lungMask, lungSegments, outputs, withSegmentation, maskIsOutput=False):
        from LesionDecompMrml.segmentation_run import Request

        return Request.read(inputVolume, lungMask, lungSegments, outputs, withSegmentation, mask_is_output=maskIsOutput)

    @staticmethod
    def _logRun(result, seconds):
        logging.info(f"LesionDecomp: segmented in {seconds:.1f} s on {result.device}, threshold {result.threshold:g}")
        for warning in result.warnings:
            logging.warning(f"LesionDecomp: {warning}")

    @staticmethod
    def every(callback):
        """Call back regularly from Qt's event loop; without Qt the run's caller polls. Returns what stops it."""
        if qt is None:
            return lambda: None
        from LesionDecompPanel.signals import connect

        timer = qt.QTimer()
        timer.interval = POLL_MS
        connect(timer, "timeout()", callback)
        timer.start()
        return timer.stop

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
        """Make lesions and table again from a finished heatmap, at another threshold; quick, no model is needed.

        :param heatmapNode: of an earlier :meth:`process`.
        :param threshold: None keeps the present one.
        :param minimumVolumeMl: smaller lesions are left out, mL; None keeps the present one.
        :param withStatistics: write the table too.
        :return: the result's nodes.
        """
        live = self.liveResult(heatmapNode)
        nodes = live.nodes
        live.update(
            nodes.threshold if threshold is None else threshold,
            nodes.minimum_volume_ml if minimumVolumeMl is None else minimumVolumeMl,
            with_statistics=withStatistics,
        )
        return nodes

    def liveResult(self, heatmapNode):
        """What a result's slider needs, prepared once and kept until the result changes.

        :raises LesionDecompError: the node is no heatmap of a complete result.
        """
        from LesionDecompMrml.live_result import LiveResult
        from LesionDecompMrml.result_nodes import result_of

        nodes = result_of(heatmapNode)
        if self._live is None or not self._live.is_of(nodes):
            self._live = LiveResult.of(nodes)
        return self._live

    def forgetLive(self):
        """Release the voxels that the slider works on, as when the scene is closed."""
        self._live = None

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

    def resultOf(self, inputVolume):
        """The latest complete result of a CT in the scene, or None."""
        from LesionDecompMrml.result_nodes import results_of_ct

        results = results_of_ct(inputVolume)
        return results[-1] if results else None

    def showResult(self, heatmapNode):
        """Show CT, heatmap and lesion outline in the slice views, at the slice with most lesion."""
        from LesionDecompMrml.result_nodes import result_of
        from LesionDecompMrml.views import show_result

        show_result(result_of(heatmapNode))

    def setLook(self, heatmapNode, heat=True, outline=True, opacity=0.5, legend=True, surfaces=None):
        """Show or hide heatmap, outline, color legend and 3-D surfaces of a result.

        :param opacity: of the heatmap, 0 to 1.
        :param surfaces: True makes the segmentation where there is none yet; None leaves surfaces as they are.
        """
        from LesionDecompMrml.result_nodes import add_segmentation, result_of
        from LesionDecompMrml.views import set_legend_visible, set_overlay, set_surfaces_visible

        nodes = result_of(heatmapNode)
        set_overlay(nodes, heat=heat, outline=outline, opacity=opacity)
        set_legend_visible(nodes, legend)
        if surfaces:
            nodes = add_segmentation(nodes)
        if surfaces is not None and nodes.segmentation is not None:
            set_surfaces_visible(nodes.segmentation, surfaces)

    def lesionPlaces(self, heatmapNode):
        """The lesions of a result from the largest to the smallest, with volume_ml and voxel (k, j, i)."""
        from LesionDecompLib.measurement.places import lesions_by_size

        live = self.liveResult(heatmapNode)
        lesions = live.live.at(live.nodes.threshold, live.nodes.minimum_volume_ml)
        return lesions_by_size(lesions.components, live.live.voxel_volume_ml)

    def jumpToVoxel(self, heatmapNode, voxel):
        """Move all slice views to a voxel (k, j, i) of a result."""
        from LesionDecompMrml.result_nodes import result_of
        from LesionDecompMrml.views import jump_to_voxel

        return jump_to_voxel(result_of(heatmapNode), voxel)

    def showPlot(self, heatmapNode, which):
        """Show a plot of a result in Slicer's plot view: "volume" (against the threshold) or "area" (along the body).

        :return: the chart node.
        """
        self.updatePlots(heatmapNode, make=True)
        chart = heatmapNode.GetNodeReference(f"LesionDecomp.{which}Chart")
        plots = getattr(slicer.modules, "plots", None)
        if plots is not None:
            plots.logic().ShowChartInLayout(chart)
        return chart

    def updatePlots(self, heatmapNode, make=False):
        """Update a result's plots, if it has any.

        :param make: make them if it has none.
        """
        from LesionDecompLib.measurement.places import area_along_body
        from LesionDecompMrml.plots import has_plots, show_area_along_body, show_volume_curve

        if not (make or has_plots(heatmapNode)):
            return
        live = self.liveResult(heatmapNode)
        lesions = live.live.at(live.nodes.threshold, live.nodes.minimum_volume_ml)
        show_volume_curve(heatmapNode, live.live.curve, live.nodes.threshold, lesions.volume_ml)
        areas = area_along_body(lesions.components, live.view, live.live.voxel_volume_ml)
        show_area_along_body(heatmapNode, *areas)

    def markThreshold(self, heatmapNode, threshold, volumeMl):
        """Move the mark in the plot of volume against threshold, where there is one; for every step of a slider."""
        from LesionDecompMrml.plots import has_plots, mark_threshold

        if has_plots(heatmapNode):
            mark_threshold(heatmapNode, threshold, volumeMl)

    def startTraining(
        self,
        dataFolder,
        outputFolder,
        preset="default",
        hours=None,
        steps=None,
        device="auto",
        resume=False,
        name="",
        settings=(),
        markedSlices=(),
        labelsFile=None,
        volumes=(),
        onProgress=None,
        onEnd=None,
    ):
        """Start training a model in a process of its own, and return at once; it goes on while other modules are used.

        :param dataFolder: training set (slices and index.csv); None where it is made from volumes of the scene.
        :param outputFolder: for checkpoints, log, pictures and, at the end, the model: ``bundle`` inside it.
        :param preset: configuration to begin with, see ``lesiondecomp train --help``.
        :param hours: train for about this many hours.
        :param steps: or this many updates; with neither, as many as the preset has.
        :param device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        :param name: of the model; empty for the folder's.
        :param resume: go on from the checkpoint in the output folder; preset and settings are then those of its start.
        :param settings: more ``key=value`` settings.
        :param markedSlices: (volume node, first, last, "normal" or "lesion"[, "train" or "val"]) each: axial slices
            counted from 0 at the lowest, both ends included.
        :param labelsFile: instead, a CSV file ``case,slice,label`` whose cases are names of ``volumes``.
        :param onProgress: called as onProgress(run) whenever the training has progressed.
        :param onEnd: called as onEnd(run) at the end.
        :return: a ``TrainingRun``: state, step, log, error, bundle, stop(), kill() and, for scripts without an event
            loop, wait(). It is kept for the session: :meth:`trainings`.
        :raises LesionDecompError: settings or data that cannot work; nothing has been started then.
        """
        from LesionDecompLib.processes.training import TrainingSettings
        from LesionDecompLib.processes.training_run import start_training
        from LesionDecompMrml.slicer_python import slicer_python
        from LesionDecompMrml.training_volumes import MarkedSlices, training_input, training_input_of_csv

        chest, labels = [], {}
        if labelsFile:
            chest, labels = training_input_of_csv(list(volumes), labelsFile)
        elif markedSlices:
            chest, labels = training_input([MarkedSlices(*mark) for mark in markedSlices])
        output = Path(outputFolder)
        run = start_training(
            TrainingSettings(
                Path(dataFolder) if dataFolder else output,
                output,
                preset=preset,
                steps=steps,
                hours=hours,
                device=device,
                resume=resume,
                name=name,
                settings=tuple(settings),
            ),
            chest,
            labels,
            python=slicer_python(),
            temporary_folder=slicer.app.temporaryPath or None,
        )
        logging.info("LesionDecomp: training started")
        self._watchTraining(run, onProgress, onEnd)
        return run

    def _watchTraining(self, run, onProgress, onEnd):
        """Poll a training from Qt's event loop until it ends, and tell of it."""
        told = None

        def watch():
            nonlocal told
            if run.is_running:
                run.poll()
            now = (run.state, run.stage, run.step)
            if told != now:
                told = now
                if onProgress is not None:
                    onProgress(run)
            if not run.is_running:
                stop()
                self.offerModel(run)
                logging.info(f"LesionDecomp: training {run.state}" + (f": {run.error}" if run.error else ""))
                if onEnd is not None:
                    onEnd(run)

        stop = self.every(watch)

    def trainings(self):
        """The trainings of this session, running and ended, the latest last; they outlive the panel."""
        from LesionDecompLib.processes.training_run import trainings

        return trainings()

    def offerModel(self, run):
        """Remember the model of a finished training, so that the model selector offers it, in later sessions too."""
        if run.bundle is None or qt is None:
            return
        from LesionDecompPanel.model_choice import remember_folders, remembered_folders

        folders = remembered_folders()
        if str(run.bundle) not in folders:
            remember_folders([*folders, str(run.bundle)])

    def showTrainingCurves(self, run):
        """Show the log of a training as a table and a chart, in Slicer's plot view where there is one.

        :return: table node and chart node, or (None, None) as long as the log is empty.
        """
        from LesionDecompMrml.training_curves import show_log, training_table

        if not run.log:
            return None, None
        isNew = training_table(slicer.mrmlScene, run.folder) is None
        table, chart = show_log(slicer.mrmlScene, run.folder, run.log)
        plots = getattr(slicer.modules, "plots", None)
        if isNew and plots is not None:
            plots.logic().ShowChartInLayout(chart)
        return table, chart

    def statisticsText(self, heatmapNode):
        """Measurements of a result for the clipboard, tab-separated, measured on the nodes as they are now."""
        from LesionDecompMrml.result_export import statistics_text
        from LesionDecompMrml.result_nodes import result_of

        return statistics_text(result_of(heatmapNode))

    def exportStatistics(self, heatmapNode, path):
        """Write the measurements of a result as CSV, measured on the nodes as they are now.

        :raises LesionDecompError: no result, or the file cannot be written; likewise the other exports.
        """
        from LesionDecompMrml.result_export import write_statistics
        from LesionDecompMrml.result_nodes import result_of

        write_statistics(result_of(heatmapNode), path)

    def exportManifest(self, heatmapNode, path):
        """Write the manifest of a result as JSON, with threshold and measurements as they are now."""
        from LesionDecompMrml.result_export import write_manifest
        from LesionDecompMrml.result_nodes import result_of

        write_manifest(result_of(heatmapNode), path)

    def exportReport(self, heatmapNode, path):
        """Write the report of a result: one HTML page with pictures, measurements, definitions and warnings."""
        from LesionDecompMrml.result_export import write_report
        from LesionDecompMrml.result_nodes import result_of

        write_report(result_of(heatmapNode), path)


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

        self.delayDisplay("Segmenting in a worker process")
        nodes = self.segmentInWorker(logic, volume)
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

    def segmentInWorker(self, logic, volume):
        """The result of the worker, as the panel's Apply makes it."""
        finished, stages = [], set()
        run = logic.startProcess(
            volume,
            segmentationNode=True,
            device="cpu",
            onProgress=lambda step: stages.add(step.stage),
            onDone=finished.append,
            onFailed=finished.append,
        )
        run.wait()
        self.assertEqual(len(finished), 1)
        if isinstance(finished[0], Exception):
            raise finished[0]
        self.assertTrue({"lungs", "heat"} <= stages, stages)
        return finished[0]

    @staticmethod
    def rowOf(tableNode, region):
        """A row of the statistics table as header -> value."""
        names = [tableNode.GetColumnName(column) for column in range(tableNode.GetNumberOfColumns())]
        for row in range(tableNode.GetNumberOfRows()):
            if tableNode.GetCellText(row, 0) == region:
                table = tableNode.GetTable()
                return {n: table.GetColumn(c).GetVariantValue(row).ToDouble() for c, n in enumerate(names) if c > 0}
        raise KeyError(region)
