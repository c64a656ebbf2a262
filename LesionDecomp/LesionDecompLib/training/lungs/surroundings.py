"""What lies around the lungs of training slices: contrast agent, bowel gas, arms, tables; slices without a chest.

All functions take slices with their neighbors, ``(n, c, h, w)`` float32 HU, see :mod:`.chance`.
"""

from __future__ import annotations

import torch

from .chance import AIR, Chance, box_mean, grown


def paint_contrast(hu: torch.Tensor, labels: torch.Tensor, chance: Chance) -> torch.Tensor:
    """Contrast agent in the lungs' vessels, and in blobs of the soft tissue between the lungs: heart, aorta, hila.

    :param labels: ``(n, c, h, w)``, lung where not 0.
    """
    some = chance.some(0.35)
    if not len(some):
        return hu
    part, lung, chance = hu[some], (labels[some] > 0).float(), chance.among(some)
    h, w = hu.shape[2:]
    vessels = lung * ((part + 400.0) / 400.0).clamp(0.0, 1.0)
    columns = torch.arange(w).view(1, 1, 1, w).float()
    rows = torch.arange(h).view(1, 1, h, 1).float()
    between = torch.ones_like(part)
    for places, axis in ((columns, 3), (rows, 2)):
        first = torch.where(lung > 0, places, float(h + w)).amin(dim=(1, 2, 3), keepdim=True)
        last = torch.where(lung > 0, places, -1.0).amax(dim=(1, 2, 3), keepdim=True)
        margin = (0.2 if axis == 3 else 0.1) * (last - first)
        between = between * (
            ((places - first - margin) / 8.0).clamp(0, 1) * ((last - margin - places) / 8.0).clamp(0, 1)
        )
    tissue = ((part > -20.0) & (part < 150.0)).float() * between * (1.0 - lung)
    blobs = torch.sigmoid((chance.smooth(h, w, 16.0) + 0.4 * chance.smooth(h, w, 7.0) - chance.between(-0.5, 0.9)) * 8)
    filled = box_mean(tissue, 1) * tissue * blobs
    part = part + vessels * chance.between(0.0, 280.0) + filled * chance.between(40.0, 320.0)
    hu = hu.clone()
    hu[some] = part
    return hu


def paint_bowel_gas(hu: torch.Tensor, labels: torch.Tensor, abdominal: torch.Tensor, chance: Chance) -> torch.Tensor:
    """Stomach and bowel with gas, fluid levels and stool in the belly: air that is not lung.

    :param labels: ``(n, c, h, w)``, lung where not 0.
    :param abdominal: ``(n,)`` bool, whether the slice lies at or below the diaphragm.
    """
    some = chance.some(0.5, abdominal)
    if not len(some):
        return hu
    part, chance = hu[some], chance.among(some)
    h, w = hu.shape[2:]
    inside = 1.0 - grown((part < -200.0).float(), 6)
    room = inside * (1.0 - grown((labels[some] > 0).float(), 4))
    loops = chance.smooth(h, w, 12.0) + 0.5 * chance.smooth(h, w, 28.0)
    gas = torch.sigmoid((loops - chance.between(0.4, 2.0)) * 12.0)
    # The level is horizontal: gas above, fluid below, in loops that hold both.
    front = torch.linspace(0.0, 1.0, h).view(1, 1, h, 1)
    dry = torch.sigmoid((chance.between(0.2, 0.9) - front) * 200.0)
    gas = gas * torch.where(chance.of(0.5) > 0, dry.expand_as(gas), torch.ones_like(gas))
    stool = chance.of(0.3) * chance.between(50.0, 700.0) * torch.rand(part.shape, generator=chance.generator)
    hu = hu.clone()
    hu[some] = part + gas * box_mean(room, 1) * (AIR + stool - part)
    return hu


def paint_surroundings(hu: torch.Tensor, chance: Chance) -> torch.Tensor:
    """Arms beside the body, a table below it, blankets and cables in the air around; painted on air outside only."""
    h, w = hu.shape[2:]
    # What lies beyond the body's outermost pixels in its row or column; air in lungs and bowel does not.
    body = hu > -500.0
    columns = torch.arange(w).view(1, 1, 1, w).float()
    rows = torch.arange(h).view(1, 1, h, 1).float()
    left = torch.where(body, columns, 1e4).amin(dim=3, keepdim=True)
    right = torch.where(body, columns, -1e4).amax(dim=3, keepdim=True)
    top = torch.where(body, rows, 1e4).amin(dim=2, keepdim=True)
    bottom = torch.where(body, rows, -1e4).amax(dim=2, keepdim=True)
    outside = (columns < left) | (columns > right) | (rows < top) | (rows > bottom)
    hu = _arms(hu, outside, left, right, chance)
    # Table: one or two thin, mostly curved lines below the body (above a prone one), with foam between.
    prone = chance.of(0.06) > 0
    lowest = bottom.amax(dim=(1, 3), keepdim=True).clamp(0, h)
    highest = top.amin(dim=(1, 3), keepdim=True).clamp(0, h)
    below = torch.where(prone, highest - rows, rows - lowest) + chance.between(-2.0, 6.0)
    below = below - chance.between(-60.0, 60.0) * ((columns / w - 0.5) ** 2)
    thickness = chance.between(6.0, 20.0)
    foam = (below > 1.2) & (below < thickness)
    table = torch.where(below.abs() < 1.2, chance.between(-500.0, 300.0), torch.tensor(AIR))
    table = torch.where(foam, chance.between(-980.0, -850.0), table)
    table = torch.where((below - thickness).abs() < 1.2, chance.between(-500.0, 300.0), table)
    hu = torch.where(outside & (chance.of(0.4) > 0), torch.maximum(hu, table), hu)
    some = chance.some(0.15)
    if len(some):  # blanket and clothes: a wavy line in the air in front of the body
        cloth = chance.among(some)
        line = rows - top[some].clamp(0, h) + cloth.between(2.0, 12.0) + 3.0 * cloth.smooth(h, w, 30.0)
        woven = torch.maximum(hu[some], cloth.between(-950.0, -600.0))
        hu[some] = torch.where(outside[some] & (line.abs() < 1.0), woven, hu[some])
    return hu


def _arms(
    hu: torch.Tensor, outside: torch.Tensor, left: torch.Tensor, right: torch.Tensor, chance: Chance
) -> torch.Tensor:
    h, w = hu.shape[2:]
    columns = torch.arange(w).view(1, 1, 1, w).float()
    rows = torch.arange(h).view(1, 1, h, 1).float()
    middle_row = chance.between(0.3, 0.8) * h
    edges = (left.amin(dim=(1, 2), keepdim=True).clamp(0, w), right.amax(dim=(1, 2), keepdim=True).clamp(0, w))
    for edge, sign in zip(edges, (-1.0, 1.0), strict=True):
        radius = chance.between(16.0, 30.0)
        middle = edge + sign * radius * chance.between(0.7, 1.3)
        arm = ((rows - middle_row) / radius).square() + ((columns - middle) / radius).square()
        flesh = torch.where(arm < 0.75, 30.0, -90.0)
        flesh = torch.where(arm < 0.1, chance.between(200.0, 900.0), flesh)
        flesh = torch.where(arm < 0.04, torch.tensor(20.0), flesh)
        hu = torch.where((arm < 1.0) & outside & (chance.of(0.25) > 0), flesh, hu)
    return hu


def phantoms(h: int, w: int, chance: Chance) -> torch.Tensor:
    """Slices without lung: heads with sinuses, legs, water phantoms with air-filled bores, empty air."""
    rows = torch.arange(h).view(1, 1, h, 1).float() - h * chance.between(0.35, 0.65)
    columns = torch.arange(w).view(1, 1, 1, w).float() - w * chance.between(0.35, 0.65)
    kind = torch.rand((chance.n, 1, 1, 1), generator=chance.generator)
    bump = 1.0 + 0.05 * chance.smooth(h, w, 40.0)
    ry, rx = chance.between(35.0, 60.0), chance.between(28.0, 48.0)
    # Legs: the same ellipse twice.
    twin = torch.where(kind < 0.25, rx * chance.between(1.0, 1.4), torch.zeros_like(rx))
    distance = torch.sqrt((rows / ry).square() + ((columns.abs() - twin) / rx).square()) * bump
    soft = chance.between(0.0, 60.0)
    skull = chance.between(300.0, 1200.0)
    hu = torch.where(distance < 1.0, soft, torch.full_like(bump, AIR))
    head = (kind >= 0.25) & (kind < 0.7)
    hu = torch.where(head & (distance > 0.82) & (distance < 0.94), skull, hu)
    hu = torch.where((kind < 0.25) & (distance < 0.25), skull, hu)
    cavities = torch.sigmoid((chance.smooth(h, w, 9.0) - chance.between(0.6, 1.8)) * 12.0) * (distance < 0.8)
    hu = hu + cavities * chance.of(0.7) * (AIR - hu)
    return torch.where(kind > 0.95, AIR + 10.0 * chance.normal(h, w), hu)
