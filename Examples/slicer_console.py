"""For the clinician: find, look at and measure the lesions of one CT from 3D Slicer's Python console.

Load a chest CT, open the console (Ctrl+3), paste this file or run it:

    exec(open("/path/to/Examples/slicer_console.py", encoding="utf-8").read())

Without a CT in the scene the bundled sample is taken.
"""

import slicer

from LesionDecomp import SAMPLE_FILE, LesionDecompLogic

logic = LesionDecompLogic()
if not logic.installMissingPackages():
    raise RuntimeError("LesionDecomp needs the packages it asked for.")

# The first scalar volume that is no result of an earlier run.
volumes = [
    node
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    if not node.IsA("vtkMRMLLabelMapVolumeNode") and node.GetAttribute("LesionDecomp.threshold") is None
]
ct = volumes[0] if volumes else slicer.util.loadVolume(str(SAMPLE_FILE))

# Heatmap, lungs, lesions and a segmentation for Segment Editor and DICOM export, on the CT's grid; all is selected in
# the panel and shown in the views.
nodes = logic.process(ct, segmentationNode=True)


def measurement(region, header):
    """One measurement of the statistics table."""
    table = nodes.table
    rows = {table.GetCellText(row, 0): row for row in range(table.GetNumberOfRows())}
    return float(table.GetCellText(rows[region], table.GetColumnIndex(header)))


# The threshold is moved on the finished heatmap: quick, no network runs.
for threshold in (0.3, 0.4, 0.5):
    logic.updateThreshold(nodes.heatmap, threshold)
    print(
        f"threshold {threshold:.1f}: {measurement('both lungs', 'Lesion volume (mL)'):.1f} mL, "
        f"{measurement('both lungs', 'Involvement (%)'):.1f} % of the lungs"
    )
