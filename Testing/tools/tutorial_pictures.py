"""Make the pictures of the tutorial: the module's logic on the bundled sample, drawn by Slicer's slice views.

    python Testing/tools/tutorial_pictures.py [FOLDER]

The views are those of desktop Slicer's four-up layout: Slicer's own slice logics blend CT, heatmap and lesion outline,
without its window around them. Nothing is painted in afterwards but the letters of the sides.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[2]
VIEWS = ("Red", "Green", "Yellow")
# Letters at the left and right edge of each view, as desktop Slicer's orientation marks have them.
SIDES = {"Red": ("R", "L"), "Green": ("R", "L"), "Yellow": ("A", "P")}
BARS = {"Red": (243, 74, 51), "Green": (110, 176, 75), "Yellow": (237, 213, 76)}
SIZE = 400


def main(folder: Path) -> None:
    """Write ``tutorial-ct.png``, ``tutorial-result.png``, ``tutorial-threshold.png`` and ``tutorial-panel.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    sys.path[:0] = [str(ROOT / "LesionDecomp"), str(ROOT / "Testing")]
    from headless_slicer import boot
    from LesionDecompMrml.views import add_slice_views

    with tempfile.TemporaryDirectory() as temporary:
        session = boot(Path(temporary))
        module = session.load_module(ROOT / "LesionDecomp" / "LesionDecomp.py")
        import slicer

        ct = slicer.util.loadVolume(str(module.SAMPLE_FILE))
        add_slice_views(ct, slicer.app.applicationLogic())
        views = SliceViews(ct, slicer)
        views.show_ct()
        views.picture(SIZE).save(folder / "tutorial-ct.png", optimize=True)
        logic = module.LesionDecompLogic()
        nodes = logic.process(ct)
        logic.result(nodes.heatmap).show()
        views.jump(nodes)
        views.picture(SIZE).save(folder / "tutorial-result.png", optimize=True)
        thresholds = (0.2, 0.4, 0.7)
        panels = []
        for threshold in thresholds:
            logic.updateThreshold(nodes.heatmap, threshold)
            table = nodes.table
            ml = float(table.GetCellText(0, table.GetColumnIndex("Lesion volume (mL)")))
            panels.append(captioned(views.view("Red", SIZE), f"threshold {threshold:g}: {ml:.1f} mL"))
        row(panels).save(folder / "tutorial-threshold.png", optimize=True)
        logic.updateThreshold(nodes.heatmap, thresholds[1])
        logic.getParameterNode().heatmap = nodes.heatmap
        draw_panel(module, temporary, folder / "tutorial-panel.png")


def draw_panel(module, settings: str, picture: Path) -> None:
    """The panel's own layout, texts and state, in Qt's plain style; what only Slicer has is a stand-in."""
    import pytest
    from headless_slicer import qt_panel

    with pytest.MonkeyPatch.context() as monkeypatch:
        panel = qt_panel.open_panel(module, monkeypatch, Path(settings))
        panel.parent.setFixedWidth(520)
        panel.parent.show()
        qt_panel.wait_for(lambda: bool(qt_panel.text_of(panel.ui.deviceInfoLabel)))
        for _ in range(20):
            qt_panel.application().processEvents()
        panel.parent.grab().save(str(picture))
        qt_panel.close_panel(panel)
    with Image.open(picture) as grabbed:
        shot = grabbed.convert("RGB")
    empty = Image.new("RGB", shot.size, shot.getpixel((shot.width - 1, shot.height - 1)))
    _, _, _, bottom = ImageChops.difference(shot, empty).getbbox()
    shot.crop((0, 0, shot.width, bottom + 12)).save(picture, optimize=True)


class SliceViews:
    """The slice views of the scene, drawn without a window."""

    def __init__(self, ct, slicer) -> None:
        self._slicer, self._ct = slicer, ct
        self._logics = {}
        for name in VIEWS:
            logic = slicer.vtkMRMLSliceLogic()
            logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
            logic.SetMRMLScene(slicer.mrmlScene)
            logic.SetSliceNode(slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLSliceNode"))
            self._logics[name] = logic

    def show_ct(self) -> None:
        for logic in self._logics.values():
            logic.GetSliceCompositeNode().SetBackgroundVolumeID(self._ct.GetID())

    def jump(self, nodes) -> None:
        """All three views through the middle of the lesion."""
        from LesionDecompMrml.views import lesion_center

        for logic in self._logics.values():
            logic.GetSliceNode().JumpSliceByOffsetting(*lesion_center(nodes))

    def view(self, name: str, size: int) -> Image.Image:
        """One view as it is on the screen, ``size`` pixels wide."""
        from vtk.util.numpy_support import vtk_to_numpy

        logic = self._logics[name]
        node = logic.GetSliceNode()
        node.SetDimensions(size, size, 1)
        bounds = np.zeros(6)
        self._ct.GetRASBounds(bounds)
        extent = float((bounds[1::2] - bounds[::2]).max())
        node.SetFieldOfView(extent, extent, node.GetFieldOfView()[2])
        logic.GetBlend().Update()
        image = logic.GetBlend().GetOutput()
        width, height, _ = image.GetDimensions()
        pixels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1, :, :3]
        picture = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8))
        draw = ImageDraw.Draw(picture)
        draw.rectangle((0, 0, width, 5), fill=BARS[name])
        for x, letter, anchor in ((6, SIDES[name][0], "lm"), (width - 6, SIDES[name][1], "rm")):
            draw.text((x, height / 2), letter, fill=(255, 255, 255), font=ImageFont.load_default(18), anchor=anchor)
        return picture

    def picture(self, size: int) -> Image.Image:
        """The three views side by side."""
        return row([self.view(name, size) for name in VIEWS])


def captioned(picture: Image.Image, text: str) -> Image.Image:
    """The picture with a line of text under it."""
    page = Image.new("RGB", (picture.width, picture.height + 34), (255, 255, 255))
    page.paste(picture, (0, 0))
    font = ImageFont.load_default(18)
    ImageDraw.Draw(page).text((picture.width / 2, picture.height + 17), text, fill=(0, 0, 0), font=font, anchor="mm")
    return page


def row(pictures: list[Image.Image], gap: int = 4) -> Image.Image:
    """Pictures of one height side by side."""
    width = sum(picture.width + gap for picture in pictures) - gap
    page = Image.new("RGB", (width, pictures[0].height), (255, 255, 255))
    left = 0
    for picture in pictures:
        page.paste(picture, (left, 0))
        left += picture.width + gap
    return page


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "Resources" / "Screenshots", metavar="FOLDER")
    main(parser.parse_args().folder)
