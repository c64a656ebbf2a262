"""Chest CT slices made different: disease painted into the lungs, other bodies and scanners, things that are no lung.

Seven patients teach a network little about the lungs that matter here. So each training slice is changed on the fly:
disease is painted **inside** the lung contour, which stays as it is (diseased lung is lung); the body is turned,
stretched, bent, shifted and cut off at the field's edge; gas, tables, arms and phantoms are painted **outside**; and
the scanner's kernel, noise, slice thickness, pixel size and calibration vary.

All functions work on batches, ``(n, h, w)`` float32 HU, and draw from one ``torch.Generator``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.nn import functional

AIR = -1000.0


@dataclass(frozen=True)
class Chance:
    """A uniform draw for each slice of a batch, shaped ``(n, 1, 1)``, and smooth noise, from one generator."""

    generator: torch.Generator
    n: int

    def between(self, low: float, high: float) -> torch.Tensor:
        """Uniform in [low, high), one number for each slice."""
        return low + (high - low) * torch.rand((self.n, 1, 1), generator=self.generator)

    def of(self, probability: float) -> torch.Tensor:
        """1 with this probability, else 0, for each slice."""
        return (torch.rand((self.n, 1, 1), generator=self.generator) < probability).float()

    def happens(self, probability: float) -> bool:
        """One draw for the whole batch: what costs time is not done for every batch."""
        return bool(torch.rand((), generator=self.generator) < probability)

    def normal(self, h: int, w: int) -> torch.Tensor:
        """White noise of unit variance, ``(n, h, w)``."""
        return torch.randn((self.n, h, w), generator=self.generator)

    def smooth(self, h: int, w: int, grain: float) -> torch.Tensor:
        """Noise of about unit variance whose bumps are ``grain`` pixels wide."""
        rows, columns = max(2, round(h / grain) + 1), max(2, round(w / grain) + 1)
        coarse = torch.randn((self.n, rows, columns), generator=self.generator)
        return _cubic_matrix(rows, h) @ coarse @ _cubic_matrix(columns, w).T * 1.3


@lru_cache(maxsize=256)
def _cubic_matrix(n_in: int, n_out: int) -> torch.Tensor:
    """Cubic interpolation along one axis as a matrix ``(n_out, n_in)``: two products are faster than a filter."""
    identity = torch.eye(n_in).view(1, n_in, n_in, 1)
    return functional.interpolate(identity, size=(n_out, 1), mode="bicubic", align_corners=True).view(n_in, n_out).T


def _grown(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """A float mask ``(n, h, w)`` grown by a square of so many pixels to each side."""
    return (_box_mean(mask, pixels) > 1e-4).float()


def _box_mean(image: torch.Tensor, pixels: int) -> torch.Tensor:
    for kernel, padding in (((2 * pixels + 1, 1), (pixels, 0)), ((1, 2 * pixels + 1), (0, pixels))):
        image = functional.avg_pool2d(image.unsqueeze(1), kernel, 1, padding).squeeze(1)
    return image


# --- inside the lungs -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Lungs:
    """Where disease is painted, all ``(n, h, w)`` but for ``sick``.

    :param lung: 1 in the lungs.
    :param rim: the lungs and a pixel around them. It is painted too where it is lighter than soft tissue: otherwise the
        half-empty pixels on the edge would give the contour of painted consolidation away.
    :param side: 1 in one of the two lungs.
    :param depth_mm: distance from the edge of the lung.
    :param texture, fine: noise with and without a grain.
    :param sick: ``(n, 1, 1)``, 1 for slices with disease.
    :param spread: high where disease is likely: patchy, more or less peripheral.
    """

    lung: torch.Tensor
    rim: torch.Tensor
    side: torch.Tensor
    depth_mm: torch.Tensor
    texture: torch.Tensor
    fine: torch.Tensor
    sick: torch.Tensor
    spread: torch.Tensor


def paint_disease(hu: torch.Tensor, labels: torch.Tensor, depth_mm: torch.Tensor, chance: Chance) -> torch.Tensor:
    """Paint ground glass, consolidation, effusion, nodules, reticulation and bullae into the lungs.

    :param hu: ``(n, h, w)`` HU.
    :param labels: ``(n, h, w)`` 0 / 1 right / 2 left.
    :param depth_mm: ``(n, h, w)`` distance from the edge of the lung in the slice, mm.
    """
    h, w = hu.shape[1:]
    lung = (labels > 0).float()
    side = torch.where(chance.of(0.5) > 0, (labels == 1).float(), (labels == 2).float())
    texture, fine = chance.smooth(h, w, 5.0), chance.normal(h, w)
    hu = _breathe(hu, lung, chance)
    sick = chance.of(0.75)
    patches = chance.smooth(h, w, 22.0) + 0.6 * chance.smooth(h, w, 8.0) + 0.25 * texture
    peripheral = chance.of(0.6) * chance.between(0.5, 2.5) * (1.0 - depth_mm / chance.between(15.0, 40.0))
    lungs = _Lungs(lung, _grown(lung, 1), side, depth_mm, texture, fine, sick, patches + peripheral)
    hu = _ground_glass_and_net(hu, lungs, chance)
    top, height = _extent_of_rows(lung)
    rows = torch.linspace(0.0, 1.0, h).view(1, h, 1).expand(len(hu), h, w)
    across = (rows - top) / height  # 0 at the front of the lungs, 1 at their back
    waves = chance.smooth(h, w, 30.0)
    hu = _consolidation(hu, lungs, across, waves, chance)
    hu = _effusion(hu, lungs, across, waves, chance)
    return _bullae(_nodules(hu, lungs, chance), lungs, chance)


def _breathe(hu: torch.Tensor, lung: torch.Tensor, chance: Chance) -> torch.Tensor:
    """Deep breath and emphysema: the lungs emptier, down to a twentieth of a voxel of tissue; expiration: denser."""
    h, w = hu.shape[1:]
    emptier = torch.where(chance.of(0.45) > 0, chance.between(0.25, 1.0), torch.ones(()))
    aerated = lung * ((-350.0 - hu) / 250.0).clamp(0.0, 1.0)  # vessels stay what they are
    hu = hu + aerated * (emptier - 1.0) * (hu - AIR)
    hu = hu + lung * chance.of(0.35) * chance.between(-40.0, 180.0)
    return hu + lung * chance.of(0.3) * (chance.smooth(h, w, 25.0) * chance.between(0.0, 60.0))


def _ground_glass_and_net(hu: torch.Tensor, lungs: _Lungs, chance: Chance) -> torch.Tensor:
    """Ground glass, and a net of thin lines in it (crazy paving) or by itself (reticulation)."""
    h, w = hu.shape[1:]
    extent = chance.between(-1.8, 1.2)
    glass = torch.sigmoid((lungs.spread + extent) * chance.between(1.5, 8.0)) * lungs.lung * lungs.sick * chance.of(0.6)
    target = chance.between(-750.0, -350.0) + 40.0 * lungs.texture * chance.between(0.0, 1.0)
    hu = torch.where(hu < target, hu + glass * (target - hu), hu)
    net = torch.exp(-(chance.smooth(h, w, 4.0).abs() * chance.between(4.0, 8.0)))
    lines = net * torch.maximum(glass, lungs.sick * chance.of(0.15) * torch.sigmoid(4.0 * lungs.spread)) * lungs.lung
    return hu + chance.of(0.4) * lines * chance.between(100.0, 350.0) * (hu < -150.0)


def _consolidation(
    hu: torch.Tensor, lungs: _Lungs, across: torch.Tensor, waves: torch.Tensor, chance: Chance
) -> torch.Tensor:
    """Consolidation: patches, the dependent part, a lobe cut off by an oblique plane, or a whole lung."""
    n, h, w = hu.shape
    columns = torch.linspace(-0.5, 0.5, w).view(1, 1, w).expand(n, h, w)
    patchy = lungs.spread - chance.between(0.3, 2.0)
    dependent = (across - chance.between(0.35, 0.95)) * 8.0 + 0.5 * waves
    angle = chance.between(0.0, 2.0 * math.pi)
    lobe = (torch.cos(angle) * (across - 0.5) + torch.sin(angle) * columns * 2.0 - chance.between(-0.2, 0.4)) * 8.0
    lobe = torch.where(lungs.side > 0, lobe + 0.3 * waves, -9.0)
    whole = torch.where(lungs.side > 0, 9.0, -9.0)
    kind = torch.rand((n, 1, 1), generator=chance.generator)
    where = torch.where(kind < 0.45, patchy, torch.where(kind < 0.7, dependent, torch.where(kind < 0.93, lobe, whole)))
    solid = torch.sigmoid(where * chance.between(2.0, 10.0)) * lungs.rim * lungs.sick * chance.of(0.55)
    target = chance.between(-120.0, 70.0) + lungs.texture * chance.between(0.0, 40.0)
    target = target + lungs.fine * chance.between(0.0, 25.0)
    bronchograms = chance.of(0.5) * torch.sigmoid((chance.smooth(h, w, 4.0) - chance.between(1.2, 2.2)) * 8.0)
    solid = solid * (1.0 - bronchograms * (lungs.depth_mm > 6.0))
    return torch.where(hu < target, hu + solid * (target - hu), hu)


def _effusion(
    hu: torch.Tensor, lungs: _Lungs, across: torch.Tensor, waves: torch.Tensor, chance: Chance
) -> torch.Tensor:
    """Effusion: a layer of water at the back, or a rim along the chest wall."""
    level = (across - chance.between(0.6, 0.97)) * 40.0 + 0.5 * waves
    rim_of_water = (chance.between(4.0, 18.0) - lungs.depth_mm) * 0.5 + (across - 0.8) * 20.0
    water = torch.sigmoid(torch.where(chance.of(0.6) > 0, level, rim_of_water)) * lungs.rim * chance.of(0.15)
    one_side = torch.where(chance.of(0.5) > 0, lungs.side, torch.ones_like(lungs.side))
    water = water * one_side.clamp_min(1.0 - lungs.lung)
    target = chance.between(-10.0, 40.0) + lungs.fine * 8.0
    return torch.where(hu < target, hu + water * (target - hu), hu)


def _nodules(hu: torch.Tensor, lungs: _Lungs, chance: Chance) -> torch.Tensor:
    """Nodules and masses."""
    h, w = hu.shape[1:]
    blobs = chance.smooth(h, w, 7.0)
    nodules = torch.sigmoid((blobs - chance.between(1.9, 3.2)) * 10.0) * lungs.rim * lungs.sick * chance.of(0.35)
    target = chance.between(-200.0, 80.0) + 20.0 * lungs.texture
    return torch.where(hu < target, hu + nodules * (target - hu), hu)


def _bullae(hu: torch.Tensor, lungs: _Lungs, chance: Chance) -> torch.Tensor:
    """Bullae: air within the lungs, away from their edge."""
    h, w = hu.shape[1:]
    bulla = torch.sigmoid((chance.smooth(h, w, 14.0) - chance.between(1.2, 2.2)) * 12.0) * lungs.lung * chance.of(0.12)
    return hu + bulla * (chance.between(-1000.0, -940.0) - hu) * (lungs.depth_mm > 2.0)


def _extent_of_rows(lung: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First row and height of the lungs, as fractions of the slice's height, ``(n, 1, 1)`` each."""
    n, h, _ = lung.shape
    hit = lung.amax(dim=2) > 0
    rows = torch.arange(h, dtype=torch.float32)
    first = torch.where(hit, rows, torch.tensor(float(h))).amin(dim=1)
    last = torch.where(hit, rows, torch.tensor(-1.0)).amax(dim=1)
    empty = last < 0
    first = torch.where(empty, 0.0, first) / h
    last = torch.where(empty, float(h - 1), last) / h
    return first.view(n, 1, 1), (last - first).clamp_min(0.05).view(n, 1, 1)


# --- outside the lungs ------------------------------------------------------------------------------------------


def paint_bowel_gas(hu: torch.Tensor, labels: torch.Tensor, abdominal: torch.Tensor, chance: Chance) -> torch.Tensor:
    """Stomach and bowel with gas, fluid levels and stool in the belly: air that is no lung.

    :param abdominal: ``(n, 1, 1)`` 1 where the slice lies at or below the diaphragm.
    """
    n, h, w = hu.shape
    inside = 1.0 - _grown((hu < -200.0).float(), 6)
    room = inside * (1.0 - _grown((labels > 0).float(), 4)) * abdominal
    loops = chance.smooth(h, w, 12.0) + 0.5 * chance.smooth(h, w, 28.0)
    gas = torch.sigmoid((loops - chance.between(0.4, 2.0)) * 12.0)
    # The level is horizontal: gas above, fluid below, in loops that hold both.
    front = torch.linspace(0.0, 1.0, h).view(1, h, 1)
    dry = torch.sigmoid((chance.between(0.2, 0.9) - front) * 200.0)
    gas = gas * torch.where(chance.of(0.5) > 0, dry.expand(n, h, w), torch.ones_like(gas))
    room = _box_mean(room, 1)
    stool = chance.of(0.3) * chance.between(50.0, 700.0) * torch.rand((n, h, w), generator=chance.generator)
    return hu + gas * room * chance.of(0.5) * (AIR + stool - hu)


def paint_surroundings(hu: torch.Tensor, chance: Chance) -> torch.Tensor:
    """Arms beside the body, a table below it, blankets and cables in the air around; painted on air outside only."""
    h, w = hu.shape[1:]
    # What lies beyond the body's outermost pixels in its row or column; air in lungs and bowel does not.
    body = (hu > -500.0).float()
    columns = torch.arange(w).view(1, 1, w).float()
    rows = torch.arange(h).view(1, h, 1).float()
    big = torch.tensor(1e4)
    left = torch.where(body > 0, columns, big).amin(dim=2, keepdim=True)
    right = torch.where(body > 0, columns, -big).amax(dim=2, keepdim=True)
    top = torch.where(body > 0, rows, big).amin(dim=1, keepdim=True)
    bottom = torch.where(body > 0, rows, -big).amax(dim=1, keepdim=True)
    outside = ((columns < left) | (columns > right) | (rows < top) | (rows > bottom)).float()

    def ellipse(cy: torch.Tensor, cx: torch.Tensor, ry: torch.Tensor, rx: torch.Tensor) -> torch.Tensor:
        return ((rows - cy) / ry).square() + ((columns - cx) / rx).square()

    middle_row = chance.between(0.3, 0.8) * h
    body_left = left.amin(dim=1, keepdim=True).clamp(0, w)
    body_right = right.amax(dim=1, keepdim=True).clamp(0, w)
    for edge, sign in ((body_left, -1.0), (body_right, 1.0)):
        radius = chance.between(16.0, 30.0)
        arm = ellipse(middle_row, edge + sign * radius * chance.between(0.7, 1.3), radius, radius)
        present = chance.of(0.25) * outside
        flesh = torch.where(arm < 0.75, 30.0, -90.0)
        flesh = torch.where(arm < 0.1, chance.between(200.0, 900.0), flesh)
        flesh = torch.where(arm < 0.04, torch.tensor(20.0), flesh)
        hu = torch.where((arm < 1.0) & (present > 0), flesh, hu)
    # Table: one or two thin, mostly curved lines below the body, with foam between.
    start = bottom.amax(dim=2, keepdim=True).clamp(0, h) - chance.between(-2.0, 6.0)
    curve = start + chance.between(-60.0, 60.0) * ((columns / w - 0.5) ** 2)
    thickness = chance.between(6.0, 20.0)
    below = rows - curve
    table = torch.where(below.abs() < 1.2, chance.between(-500.0, 300.0), torch.full_like(hu, AIR))
    foam = chance.between(-980.0, -850.0)
    table = torch.where((below > 1.2) & (below < thickness), foam, table)
    table = torch.where((below - thickness).abs() < 1.2, chance.between(-500.0, 300.0), table)
    hu = torch.where((outside > 0) & (chance.of(0.4) > 0), torch.maximum(hu, table), hu)
    # Blanket and clothes: a wavy line in the air in front of the body.
    cloth = (rows - top.clamp(0, h) + chance.between(2.0, 12.0) + 3.0 * chance.smooth(h, w, 30.0)).abs() < 1.0
    return torch.where((outside > 0) & cloth & (chance.of(0.15) > 0), torch.maximum(hu, chance.between(-950, -600)), hu)


def phantoms(n: int, h: int, w: int, chance: Chance) -> torch.Tensor:
    """Slices without lung: heads with sinuses, legs, water phantoms with air-filled bores, empty air; ``(n, h, w)``."""
    rows = torch.arange(h).view(1, h, 1).float() - h * chance.between(0.35, 0.65)
    columns = torch.arange(w).view(1, 1, w).float() - w * chance.between(0.35, 0.65)
    kind = torch.rand((n, 1, 1), generator=chance.generator)
    bump = 1.0 + 0.05 * chance.smooth(h, w, 40.0)
    ry, rx = chance.between(35.0, 60.0), chance.between(28.0, 48.0)
    # Legs: the same ellipse twice.
    twin = torch.where(kind < 0.25, rx * chance.between(1.0, 1.4), torch.zeros_like(rx))
    distance = torch.sqrt((rows / ry).square() + ((columns.abs() - twin) / rx).square()) * bump
    soft = chance.between(0.0, 60.0)
    skull = chance.between(300.0, 1200.0)
    hu = torch.where(distance < 1.0, soft, torch.full((n, h, w), AIR))
    head = (kind >= 0.25) & (kind < 0.7)
    hu = torch.where(head & (distance > 0.82) & (distance < 0.94), skull, hu)
    hu = torch.where((kind < 0.25) & (distance < 0.25), skull, hu)
    cavities = torch.sigmoid((chance.smooth(h, w, 9.0) - chance.between(0.6, 1.8)) * 12.0) * (distance < 0.8)
    hu = hu + cavities * chance.of(0.7) * (AIR - hu)
    return torch.where(kind > 0.95, AIR + 10.0 * chance.normal(h, w), hu)


# --- bodies and scanners ----------------------------------------------------------------------------------------


def warp(
    hu: torch.Tensor, labels: torch.Tensor, size: tuple[int, int], chance: Chance
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn, stretch, shear, bend, mirror and shift slices and cut a field of ``size`` out of them.

    :return: HU ``(n, *size)`` (-1000 beyond the scan) and labels ``(n, *size)`` uint8. Mirroring from side to side
        exchanges the labels, so that label 1 stays on the left of the picture.
    """
    n, h, w = hu.shape
    out_h, out_w = size
    turn = torch.where(chance.of(0.1) > 0, chance.between(-0.8, 0.8), chance.between(-0.26, 0.26)).flatten()
    scale = torch.where(chance.of(0.2) > 0, chance.between(0.45, 1.5), chance.between(0.72, 1.3)).flatten()
    stretch, shear = chance.between(0.85, 1.18).flatten(), chance.between(-0.12, 0.12).flatten()
    mirror = 1.0 - 2.0 * chance.of(0.08).flatten()
    upside = 1.0 - 2.0 * chance.of(0.03).flatten()
    # Output pixel (from its middle) -> input pixel (from its middle).
    cos, sin = torch.cos(turn) / scale, torch.sin(turn) / scale
    a, b = cos * stretch * mirror, (-sin + shear * cos) * mirror
    c, d = sin * stretch * upside, (cos + shear * sin) * upside
    y = torch.arange(out_h).float() - (out_h - 1) / 2
    x = torch.arange(out_w).float() - (out_w - 1) / 2
    yy, xx = torch.meshgrid(y, x, indexing="ij")
    # Mostly near the middle, at times far enough to cut a lung off.
    far = torch.where(chance.of(0.2) > 0, 0.38, 0.1)
    shift_y, shift_x = chance.between(-1.0, 1.0) * far * 0.6 * h, chance.between(-1.0, 1.0) * far * w
    bend = chance.of(0.5) * chance.between(0.0, 4.0)
    source_x = a.view(n, 1, 1) * xx + b.view(n, 1, 1) * yy + shift_x + bend * chance.smooth(out_h, out_w, 45.0)
    source_y = c.view(n, 1, 1) * xx + d.view(n, 1, 1) * yy + shift_y + bend * chance.smooth(out_h, out_w, 45.0)
    grid = torch.stack([source_x * (2.0 / w), source_y * (2.0 / h)], dim=-1)
    planes = torch.stack([hu - AIR, (labels == 1).float(), (labels == 2).float()], dim=1)
    planes = functional.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    right, left = planes[:, 1], planes[:, 2]
    flipped = (mirror < 0).view(n, 1, 1)
    right, left = torch.where(flipped, left, right), torch.where(flipped, right, left)
    warped = torch.where(right + left >= 0.5, torch.where(right >= left, 1, 2), 0)
    return planes[:, 0] + AIR, warped.to(torch.uint8)


def cut_field(hu: torch.Tensor, labels: torch.Tensor, chance: Chance) -> tuple[torch.Tensor, torch.Tensor]:
    """A scanner's field of view: a circle or a rectangle, padded; what lies outside is not lung."""
    h, w = hu.shape[1:]
    rows = torch.arange(h).view(1, h, 1).float() - h / 2 - chance.between(-12.0, 12.0)
    columns = torch.arange(w).view(1, 1, w).float() - w / 2 - chance.between(-12.0, 12.0)
    radius = chance.between(0.42, 0.75) * w
    circle = rows.square() + columns.square() > radius.square()
    box = (rows.abs() > chance.between(0.3, 0.6) * h) | (columns.abs() > chance.between(0.25, 0.6) * w)
    outside = (circle & (chance.of(0.25) > 0)) | (box & (chance.of(0.15) > 0))
    # -1024, -2000 and -3024 all are the window's floor; now and then a converter writes 0.
    fill = torch.where(chance.of(0.12) > 0, torch.tensor(0.0), torch.tensor(-3024.0))
    return torch.where(outside, fill, hu), torch.where(outside, torch.zeros_like(labels), labels)


def image(hu: torch.Tensor, chance: Chance) -> torch.Tensor:
    """A scanner's picture of the same slice: calibration, kernel, pixel size, streaks and noise."""
    h, w = hu.shape[1:]
    noise = chance.normal(h, w)
    if chance.happens(0.5):  # a soft kernel's noise has a grain
        noise = 2.0 * _box_mean(noise, 1)
    level = torch.where(chance.of(0.25) > 0, chance.between(0.0, 120.0), chance.between(0.0, 40.0))
    if chance.happens(0.35):  # large pixels
        factor = 1.0 + 1.4 * float(torch.rand((), generator=chance.generator))
        small = functional.interpolate((hu + level * noise).unsqueeze(1), scale_factor=1.0 / factor, mode="area")
        hu = functional.interpolate(small, size=(h, w), mode="bilinear", align_corners=False).squeeze(1)
    else:
        hu = hu + level * noise
        blurred = functional.avg_pool2d(hu.unsqueeze(1), 3, 1, 1, count_include_pad=False).squeeze(1)
        hu = hu + chance.between(-0.6, 1.0) * chance.of(0.7) * (blurred - hu)  # sharper or softer
    if chance.happens(0.2):  # photon starvation streaks through the shoulders
        streaks = functional.avg_pool2d(chance.normal(h, w).unsqueeze(1), (1, 41), 1, (0, 20)).squeeze(1)
        hu = hu + streaks * 6.4 * chance.between(0.0, 90.0)
    gain, offset = chance.between(0.93, 1.07), torch.where(chance.of(0.3) > 0, chance.between(-70, 70), torch.zeros(()))
    return (hu - AIR) * gain + AIR + offset
