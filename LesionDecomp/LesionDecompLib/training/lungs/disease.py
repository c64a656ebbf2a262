"""Disease painted into the lungs of training slices.

What is painted stays lung, as the convention has it: ground glass, consolidation, tumors and nodules, however much they
look like the tissue they touch. Effusion alone is no lung: where it is painted the label goes.

All functions take slices with their neighbors, ``(n, c, h, w)`` float32 HU, see :mod:`.chance`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .chance import AIR, Chance, grown


@dataclass(frozen=True, eq=False)
class Lungs:
    """Where disease is painted, all ``(n, c, h, w)``.

    :param lung: 1 in the lungs.
    :param rim: the lungs and a pixel around them. It is painted too where it is lighter than soft tissue: otherwise the
        half-empty pixels on the edge would give the contour of painted consolidation away.
    :param side: 1 in one of the two lungs.
    :param depth_mm: distance from the edge of the lung in the slice.
    :param across: 0 where the lungs begin on the upper side, 1 where they end on the side the patient lies on.
    :param texture: noise with a grain.
    :param spread: high where disease is likely: patchy, more or less peripheral.
    """

    lung: torch.Tensor
    rim: torch.Tensor
    side: torch.Tensor
    depth_mm: torch.Tensor
    across: torch.Tensor
    texture: torch.Tensor
    spread: torch.Tensor

    @classmethod
    def of(cls, labels: torch.Tensor, depth_mm: torch.Tensor, chance: Chance) -> Lungs:
        """Lungs of labels 0 / 1 right / 2 left, with a draw of where disease is."""
        h, w = labels.shape[2:]
        lung = (labels > 0).float()
        side = torch.where(chance.of(0.5) > 0, (labels == 1).float(), (labels == 2).float())
        texture = chance.smooth(h, w, 5.0)
        patches = chance.smooth(h, w, 22.0) + 0.6 * chance.smooth(h, w, 8.0) + 0.25 * texture
        peripheral = chance.of(0.6) * chance.between(0.5, 2.5) * (1.0 - depth_mm / chance.between(15.0, 40.0))
        top, height = _extent_of_rows(lung)
        across = (torch.linspace(0.0, 1.0, h).view(1, 1, h, 1).expand_as(lung) - top) / height
        across = torch.where(chance.of(0.08) > 0, 1.0 - across, across)  # now and then a patient lies prone
        return cls(lung, grown(lung, 1), side, depth_mm, across, texture, patches + peripheral)

    def among(self, some: torch.Tensor) -> Lungs:
        """These slices alone."""
        return Lungs(*(getattr(self, name)[some] for name in self.__dataclass_fields__))


def paint_disease(
    hu: torch.Tensor, labels: torch.Tensor, depth_mm: torch.Tensor, chance: Chance
) -> tuple[torch.Tensor, torch.Tensor]:
    """Paint ground glass, consolidation, tumors, nodules, reticulation, bullae and effusion into the lungs.

    :param hu: ``(n, c, h, w)`` HU.
    :param labels: ``(n, c, h, w)`` uint8, 0 / 1 right / 2 left.
    :param depth_mm: ``(n, c, h, w)`` distance from the edge of the lung in the slice, mm.
    :return: HU, and the labels less the effusion.
    """
    lungs = Lungs.of(labels, depth_mm, chance)
    hu = _breathe(hu, lungs.lung, chance)
    sick = torch.rand(len(hu), generator=chance.generator) < 0.75
    painters: tuple[tuple[float, Callable[[torch.Tensor, Lungs, Chance], torch.Tensor]], ...] = (
        (0.6, _ground_glass),
        (0.15, _net),
        (0.5, _consolidation),
        (0.5, _tumor),
        (0.35, _nodules),
        (0.12, _bullae),
    )
    for probability, paint in painters:
        some = chance.some(probability, sick)
        if len(some):
            hu[some] = paint(hu[some], lungs.among(some), chance.among(some))
    some = chance.some(0.15)
    if len(some):
        labels = labels.clone()
        hu[some], labels[some] = _effusion(hu[some], labels[some], lungs.among(some), chance.among(some))
    return hu, labels


def _breathe(hu: torch.Tensor, lung: torch.Tensor, chance: Chance) -> torch.Tensor:
    """Deep breath and emphysema: the lungs emptier, down to a twentieth of a voxel of tissue; expiration: denser."""
    h, w = hu.shape[2:]
    emptier = torch.where(chance.of(0.45) > 0, chance.between(0.25, 1.0), torch.ones(()))
    aerated = lung * ((-350.0 - hu) / 250.0).clamp(0.0, 1.0)  # vessels stay what they are
    hu = hu + aerated * (emptier - 1.0) * (hu - AIR)
    denser = chance.of(0.35) * chance.between(-40.0, 180.0)
    return hu + lung * (denser + chance.of(0.3) * (chance.smooth(h, w, 25.0) * chance.between(0.0, 60.0)))


def _ground_glass(hu: torch.Tensor, lungs: Lungs, chance: Chance) -> torch.Tensor:
    """Ground glass, at times with a net of thin lines in it (crazy paving)."""
    glass = torch.sigmoid((lungs.spread + chance.between(-1.8, 1.2)) * chance.between(1.5, 8.0)) * lungs.lung
    target = chance.between(-750.0, -350.0) + 40.0 * lungs.texture * chance.between(0.0, 1.0)
    hu = torch.where(hu < target, hu + glass * (target - hu), hu)
    return _lines(hu, glass * chance.of(0.4), chance)


def _net(hu: torch.Tensor, lungs: Lungs, chance: Chance) -> torch.Tensor:
    """A net of thin lines by itself (reticulation)."""
    return _lines(hu, torch.sigmoid(4.0 * lungs.spread) * lungs.lung, chance)


def _lines(hu: torch.Tensor, where: torch.Tensor, chance: Chance) -> torch.Tensor:
    h, w = hu.shape[2:]
    net = torch.exp(-(chance.smooth(h, w, 4.0).abs() * chance.between(4.0, 8.0)))
    return hu + net * where * chance.between(100.0, 350.0) * (hu < -150.0)


def _consolidation(hu: torch.Tensor, lungs: Lungs, chance: Chance) -> torch.Tensor:
    """Consolidation: patches, the dependent part, a lobe cut off by an oblique plane, or all of a lung's section."""
    n, _, h, w = hu.shape
    waves = chance.smooth(h, w, 30.0)
    columns = torch.linspace(-0.5, 0.5, w).view(1, 1, 1, w)
    patchy = lungs.spread - chance.between(0.3, 2.0)
    dependent = (lungs.across - chance.between(0.35, 0.95)) * 8.0 + 0.5 * waves
    angle, climb = chance.between(0.0, 2.0 * math.pi), chance.between(-0.05, 0.05)
    height = chance.z.view(*chance.z.shape, 1, 1) * climb  # fissures rise: the lobe grows from slice to slice
    lobe = torch.cos(angle) * (lungs.across - 0.5) + torch.sin(angle) * columns * 2.0
    lobe = (lobe + height - chance.between(-0.2, 0.4)) * 8.0
    lobe = torch.where(lungs.side > 0, lobe + 0.3 * waves, -9.0)
    whole = torch.where(lungs.side > 0, 9.0, -9.0)
    kind = torch.rand((n, 1, 1, 1), generator=chance.generator)
    where = torch.where(kind < 0.4, patchy, torch.where(kind < 0.65, dependent, torch.where(kind < 0.9, lobe, whole)))
    solid = torch.sigmoid(where * chance.between(2.0, 10.0)) * lungs.rim
    target = chance.between(-120.0, 90.0) + lungs.texture * chance.between(0.0, 40.0)
    target = target + chance.normal(h, w) * chance.between(0.0, 25.0)
    bronchograms = chance.of(0.5) * torch.sigmoid((chance.smooth(h, w, 4.0) - chance.between(1.2, 2.2)) * 8.0)
    solid = solid * (1.0 - bronchograms * (lungs.depth_mm > 6.0))
    return torch.where(hu < target, hu + solid * (target - hu), hu)


def _tumor(hu: torch.Tensor, lungs: Lungs, chance: Chance) -> torch.Tensor:
    """A mass of 1 to 11 cm, mostly broad at the pleura, the hilum or the diaphragm; some with a halo or a cavity."""
    n, c, h, w = hu.shape
    middle, depth = lungs.lung[:, c // 2].flatten(1), lungs.depth_mm[:, c // 2].flatten(1)
    at_edge = torch.where(chance.of(0.75).view(n, 1) > 0, (depth < 8.0).float(), torch.ones(()))
    odds = middle * at_edge + 1e-9
    place = torch.multinomial(odds, 1, generator=chance.generator)
    row, column = (place // w).view(n, 1, 1, 1), (place % w).view(n, 1, 1, 1)
    radius = 3.0 * (9.0 ** torch.rand((n, 1, 1, 1), generator=chance.generator))
    rows = (torch.arange(h).view(1, 1, h, 1) - row) / chance.between(0.7, 1.3)
    columns = (torch.arange(w).view(1, 1, 1, w) - column) / chance.between(0.7, 1.3)
    height = (chance.z.view(n, c, 1, 1) - chance.between(-0.5, 0.5) * radius) / chance.between(0.8, 1.6)
    lobules = chance.smooth(h, w, 6.0) * chance.between(0.0, 0.15) + chance.smooth(h, w, 14.0) * 0.1
    inside = 1.0 - torch.sqrt(rows.square() + columns.square() + height.square()) / radius + lobules
    # An edge of about a pixel; farther out the halo.
    mass = torch.sigmoid(inside * radius * chance.between(1.5, 4.0)) * lungs.rim
    halo = chance.of(0.3) * torch.sigmoid((inside + 0.4) * 8.0) * lungs.lung
    target = chance.between(-40.0, 100.0) + lungs.texture * chance.between(0.0, 25.0)
    glass = chance.between(-700.0, -450.0)
    hu = torch.where(hu < glass, hu + halo * (glass - hu), hu)
    hu = torch.where(hu < target, hu + mass * (target - hu), hu)
    hollow = chance.of(0.12) * torch.sigmoid((inside - chance.between(0.35, 0.6)) * 20.0) * lungs.lung
    return hu + hollow * (torch.where(chance.of(0.5) > 0, -950.0, 5.0) - hu)


def _nodules(hu: torch.Tensor, lungs: Lungs, chance: Chance) -> torch.Tensor:
    """Nodules, mostly several."""
    h, w = hu.shape[2:]
    blobs = chance.smooth(h, w, 7.0)
    nodules = torch.sigmoid((blobs - chance.between(1.9, 3.2)) * 10.0) * lungs.rim
    target = chance.between(-200.0, 80.0) + 20.0 * lungs.texture
    return torch.where(hu < target, hu + nodules * (target - hu), hu)


def _bullae(hu: torch.Tensor, lungs: Lungs, chance: Chance) -> torch.Tensor:
    """Bullae: air within the lungs, away from their edge."""
    h, w = hu.shape[2:]
    bulla = torch.sigmoid((chance.smooth(h, w, 14.0) - chance.between(1.2, 2.2)) * 12.0) * lungs.lung
    return hu + bulla * (chance.between(-1000.0, -940.0) - hu) * (lungs.depth_mm > 2.0)


def _effusion(
    hu: torch.Tensor, labels: torch.Tensor, lungs: Lungs, chance: Chance
) -> tuple[torch.Tensor, torch.Tensor]:
    """Effusion: a layer of water where the patient lies on, or a rim along the chest wall; what it fills is no lung."""
    h, w = hu.shape[2:]
    waves = chance.smooth(h, w, 30.0)
    level = (lungs.across - chance.between(0.6, 0.97)) * 100.0 + waves
    rim_of_water = (chance.between(4.0, 18.0) - lungs.depth_mm) + (lungs.across - 0.8) * 40.0
    water = torch.sigmoid(torch.where(chance.of(0.6) > 0, level, rim_of_water)) * lungs.rim
    one_side = torch.where(chance.of(0.6) > 0, lungs.side, torch.ones_like(lungs.side))
    water = water * one_side.clamp_min(1.0 - lungs.lung)
    target = chance.between(-10.0, 40.0) + chance.normal(h, w) * 8.0
    # The pixel around the lungs is painted where it is lighter than water: beyond lies what was there before.
    painted = torch.where((lungs.lung > 0) | (hu < target), hu + water * (target - hu), hu)
    return painted, torch.where(water >= 0.5, torch.zeros_like(labels), labels)


def _extent_of_rows(lung: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First row and height of the lungs of a slice and its neighbors, as fractions of its height, ``(n, 1, 1, 1)``."""
    n, _, h, _ = lung.shape
    hit = lung.amax(dim=(1, 3)) > 0
    rows = torch.arange(h, dtype=torch.float32)
    first = torch.where(hit, rows, torch.tensor(float(h))).amin(dim=1)
    last = torch.where(hit, rows, torch.tensor(-1.0)).amax(dim=1)
    empty = last < 0
    first = torch.where(empty, 0.0, first) / h
    last = torch.where(empty, float(h - 1), last) / h
    return first.view(n, 1, 1, 1), (last - first).clamp_min(0.05).view(n, 1, 1, 1)
