"""Does G1's healthy version look healthy? A judge that never met G1, and how much of the rest G1 leaves alone."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from ..models.networks import Critic, DecompositionNet
from ..segmentation.smoothing import shrink_inside
from .augmentation import augment
from .config import Augmentation
from .data.slices import SliceSet, lung_crops
from .draws import SliceDraws

SIZE = (160, 192)
SHRINK = 2
BATCH = 16
GRAYS = 127.5  # gray levels of an 8-bit slice in one unit of [-1, 1]


def train_judge(data: SliceSet, steps: int = 400, seed: int = 0) -> Critic:
    """A small classifier of lesion and normal slices, trained on their labels alone, at half resolution.

    Its score is the logit of "normal". It shares nothing with the decomposition it is to judge.

    :param data: the training slices.
    """
    generator = np.random.default_rng([seed, 17])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = Critic(16)
    crops = torch.from_numpy(lung_crops(data.images, SIZE))
    groups = [crops[torch.from_numpy(data.lesion)], crops[torch.from_numpy(~data.lesion)]]
    ranges = Augmentation(rim=0.0, gravity=0.0, noise=0.0, blur=0.0)
    optimizer = torch.optim.Adam(judge.parameters(), lr=1e-3)
    for step in range(steps):
        half = [group[torch.from_numpy(generator.integers(len(group), size=BATCH // 2))] for group in groups]
        x = torch.cat(half).unsqueeze(1).float() / GRAYS - 1.0
        x, _ = augment(x, ranges, SliceDraws(generator.integers(2**62, size=BATCH)))
        normal = torch.arange(BATCH) >= BATCH // 2
        logits = judge(shrink_inside(x, SHRINK))
        loss = functional.binary_cross_entropy_with_logits(logits, normal.float())
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (1 - step / steps) + 1e-5
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return judge.eval()


@torch.inference_mode()
def healthy_version_metrics(
    network: DecompositionNet, judge: Critic, data: SliceSet, heat: np.ndarray, threshold: float, shrink: int = 1
) -> dict[str, float]:
    """How healthy the healthy versions of a split's slices look, and how little G1 changes the rest.

    :param judge: of :func:`train_judge`.
    :param heat: ``(n, h, w)`` of the slices of ``data``, in [0, 1].
    :param shrink: factor by which slices are averaged down for ``network``.
    :return: ``judge_auc`` on the slices as they are; the share of lesion slices the judge calls normal as they are and
        after G1; mean |x - G1(x)| in gray levels of 255, in lung below ``threshold`` of lesion slices, above it, and in
        normal slices.
    """
    size = (192, 224)
    device = next(network.parameters()).device
    crops, heats = lung_crops(data.images, size), lung_crops(heat, size, around=data.images)
    before, after, below, above = [], [], np.zeros(2), np.zeros(2)
    in_normal = np.zeros(2)
    for start in range(0, len(crops), BATCH):
        part = slice(start, start + BATCH)
        x = torch.from_numpy(crops[part]).to(device, torch.float32).unsqueeze(1) / GRAYS - 1.0
        small = shrink_inside(x, shrink) if shrink > 1 else x
        normal = network.normal(small).float()
        if shrink > 1:
            normal = functional.interpolate(normal, scale_factor=shrink, mode="bilinear", align_corners=False)
        normal = torch.where(x > -1, normal.clamp(-1 + 1 / GRAYS, 1.0), -1.0)
        before.append(judge(shrink_inside(x, SHRINK).cpu()).numpy())
        after.append(judge(shrink_inside(normal, SHRINK).cpu()).numpy())
        change = (x - normal).abs()[:, 0].cpu().numpy() * GRAYS
        lung, hot = crops[part] > 0, heats[part] >= threshold
        sick = data.lesion[part][:, None, None]
        for sums, where in ((below, lung & ~hot & sick), (above, lung & hot & sick), (in_normal, lung & ~sick)):
            sums += change[where].sum(), where.sum()
    scores, healed = np.concatenate(before), np.concatenate(after)
    sick, well = scores[data.lesion], scores[~data.lesion]
    auc = float(np.mean(well[:, None] > sick[None]) + 0.5 * np.mean(well[:, None] == sick[None]))

    def mean(sums: np.ndarray) -> float:
        return round(float(sums[0] / max(sums[1], 1)), 2)

    return {
        "judge_auc": round(auc, 4),
        "lesion_slices_called_normal": round(float(np.mean(sick > 0)), 4),
        "lesion_slices_called_normal_after_G1": round(float(np.mean(healed[data.lesion] > 0)), 4),
        "normal_slices_called_normal": round(float(np.mean(well > 0)), 4),
        "change_outside_lesions_grey": mean(below),
        "change_in_lesions_grey": mean(above),
        "change_in_normal_slices_grey": mean(in_normal),
    }
