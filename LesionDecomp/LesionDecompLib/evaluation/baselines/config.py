"""Configurations of the baselines; defaults are what ``lesiondecomp train --preset NAME`` trains.

Steps are those that fit the compute budget of the comparison (Testing/RESULTS.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import LesionDecompError
from ...training.config import Augmentation


@dataclass(frozen=True)
class BaselineConfig:
    """What all baselines share.

    :param crop: height and width of the window around the lungs, pixels.
    :param shrink: slices are averaged down by this factor.
    :param channels, widest: of the U-Net, as of the decomposition it is compared with.
    """

    seed: int = 0
    steps: int = 1000
    batch_lesion: int = 8
    batch_normal: int = 8
    crop: tuple[int, ...] = (160, 192)
    shrink: int = 2
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-5
    betas: tuple[float, ...] = (0.9, 0.99)
    ema: float = 0.998
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_lesion, self.batch_normal) < 1:
            raise LesionDecompError(
                "Training configuration", "a step or batch count below 1", "at least 1 step, 1 lesion, 1 normal slice"
            )


@dataclass(frozen=True)
class ClassifierConfig(BaselineConfig):
    """ResNet-18 that tells lesion from normal slices: CAM (Zhou et al., 2016), Grad-CAM (Selvaraju et al., 2017).

    :param width: channels of its first block (ResNet-18: 64).
    """

    steps: int = 990
    width: int = 64
    weight_decay: float = 1e-4


@dataclass(frozen=True)
class CriticConfig(BaselineConfig):
    """What the methods with a Wasserstein critic share.

    :param penalty: λ of the gradient penalty.
    :param alpha_adversarial: weight of the critic's opinion.
    """

    channels: int = 16
    widest: int = 128
    norm: str = "batch"
    critic_channels: int = 16
    critic_learning_rate: float = 2e-4
    penalty: float = 10.0
    alpha_adversarial: float = 1.0


@dataclass(frozen=True)
class VaGanConfig(CriticConfig):
    """VA-GAN (Baumgartner et al., CVPR 2018).

    :param critic_steps: critic updates for each update of the map.
    :param critic_steps_often: instead, for the first ``often_first`` updates and for every ``often_every``-th.
    :param alpha_map: weight of mean \\|M(x)\\|.
    """

    steps: int = 500
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-3
    critic_learning_rate: float = 1e-3
    betas: tuple[float, ...] = (0.0, 0.9)
    critic_steps: int = 5
    critic_steps_often: int = 20  # 100 in the paper: 25 such updates alone would take the whole budget
    often_first: int = 25
    often_every: int = 100
    alpha_map: float = 100.0


@dataclass(frozen=True)
class BiomarkerConfig(CriticConfig):
    """BL, biomarker localization by classifier and critic together (Zhang et al., MICCAI 2019).

    :param alpha_class: weight of the classifier's opinion of G(x).
    :param alpha_same: weight of mean \\|x - G(x)\\|.
    """

    steps: int = 1350
    betas: tuple[float, ...] = (0.5, 0.9)
    alpha_adversarial: float = 0.05
    alpha_class: float = 0.5
    alpha_same: float = 10.0


BASELINES: dict[str, type[BaselineConfig]] = {
    "classifier": ClassifierConfig,
    "va-gan": VaGanConfig,
    "biomarker": BiomarkerConfig,
}
