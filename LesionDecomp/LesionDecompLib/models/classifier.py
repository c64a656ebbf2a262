"""A ResNet-18 classifier of lesion and normal slices, by MONAI."""

from __future__ import annotations

import torch
from torch import nn

from ..libraries import libraries_named

# The layers whose features become maps: by CAM the last one, by Grad-CAM the one before, twice as fine.
CAM_LAYER, GRAD_CAM_LAYER = "resnet.layer4", "resnet.layer3"
NORMAL, LESION = 0, 1


class SliceClassifier(nn.Module):
    """ResNet-18 without its first pooling, so that a map's pixel of a halved slice spans what it spans of a full one.

    :param width: channels of the first block (ResNet-18: 64).
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        with libraries_named():
            from monai.networks.nets import ResNet  # an extra: only comparisons need it

        widths = [width * 2**level for level in range(4)]
        self.resnet = ResNet(
            "basic",
            [2, 2, 2, 2],
            widths,
            spatial_dims=2,
            n_input_channels=1,
            conv1_t_stride=2,
            no_max_pool=True,
            num_classes=2,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, 1, h, w)`` in [-1, 1] to logits ``(n, 2)``: normal, lesion."""
        return self.resnet(x)
