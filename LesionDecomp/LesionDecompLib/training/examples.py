"""Example decompositions of fixed slices, drawn while training goes on: does it learn, collapse or copy?"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..io.atomic import write_bytes
from ..models.networks import DecompositionNet
from ..report.colors import heat_color_table
from ..segmentation.smoothing import shrink_inside
from .data.slices import SliceSet, lung_crops

COLUMNS = ("slice", "healthy version G1", "lesion part G2", "heat", "|slice - G1|")
SIZE = (160, 192)
HEADER = 18


class ExampleSlices:
    """A few slices of a set, the same ones at every look.

    :param data: the set; lesion and normal slices are taken evenly spread over it.
    :param shrink: as in training.
    """

    def __init__(self, data: SliceSet, shrink: int = 1, lesions: int = 4, normals: int = 2) -> None:
        chosen = [
            np.flatnonzero(of_label)[np.linspace(0, of_label.sum() - 1, min(count, of_label.sum())).round().astype(int)]
            for of_label, count in ((data.lesion, lesions), (~data.lesion, normals))
        ]
        self.labels = ["lesion"] * len(chosen[0]) + ["normal"] * len(chosen[1])
        self.crops = lung_crops(data.images[np.concatenate(chosen)], SIZE)
        self.shrink = shrink

    @torch.inference_mode()
    def draw(self, network: DecompositionNet, picture: Path) -> None:
        """Draw the decompositions, a row for each slice, columns as :data:`COLUMNS`, all on one gray scale.

        A network that learns empties G1 of lesions and leaves it alone elsewhere; one that copies has a last column
        without anything; one that collapsed has a G1 without lungs.
        """
        network.eval()
        device = next(network.parameters()).device
        x = torch.from_numpy(self.crops).to(device, torch.float32).unsqueeze(1) / 127.5 - 1.0
        x = shrink_inside(x, self.shrink) if self.shrink > 1 else x
        lung = x > -1
        out = network(x)
        gated = getattr(network, "gated", True)
        heat = torch.sigmoid(out.gate.float()) if gated else out.lesion.float().clamp(0, 1)
        normal, lesion = out.normal.float(), out.lesion.float()
        parts = ((x + 1) / 2, (normal + 1) / 2, lesion / 2, heat, (x - normal).abs() / 2)
        layers = [torch.where(lung, part, 0.0).clamp(0, 1)[:, 0].cpu().numpy() for part in parts]
        colors = heat_color_table()
        rows = []
        for number in range(len(x)):
            cells = [
                colors[np.rint(layer[number] * 255).astype(np.uint8)] * (layer[number] > 0)[..., None]
                if column == COLUMNS.index("heat")
                else np.repeat(np.rint(layer[number] * 255).astype(np.uint8)[..., None], 3, axis=2)
                for column, layer in enumerate(layers)
            ]
            rows.append(np.concatenate(cells, axis=1))
        image = Image.fromarray(np.concatenate(rows).astype(np.uint8))
        image = image.resize((image.width * self.shrink, image.height * self.shrink))
        sheet = Image.new("RGB", (image.width, image.height + HEADER), (32, 32, 32))
        sheet.paste(image, (0, HEADER))
        pen = ImageDraw.Draw(sheet)
        for column, title in enumerate(COLUMNS):
            pen.text((column * SIZE[1] + 4, 3), title, fill=(235, 235, 235))
        for row, label in enumerate(self.labels):
            pen.text((4, HEADER + row * SIZE[0] + 3), label, fill=(235, 235, 235))
        buffer = io.BytesIO()
        sheet.save(buffer, format="PNG")
        write_bytes(picture, buffer.getvalue(), "Drawing example decompositions")
