"""Configurations of the baselines; defaults are what ``lesiondecomp train --preset NAME`` trains.

``steps`` are the most that are trained, about six hours of one core; a training ends before where average precision on
``val`` has gained less than ``least_gain`` in ``patience_steps``, about two hours.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import ConfigError
from ...training.config import Augmentation


@dataclass(frozen=True)
class BaselineConfig:
    """What all baselines share.

    :param crop: height and width of the window around the lungs, pixels.
    :param shrink: slices are averaged down by this factor.
    :param val_every, patience_steps, least_gain: as of :class:`LesionDecompLib.training.config.LesionConfig`.
    """

    seed: int = 0
    steps: int = 36_000
    val_every: int = 1000
    patience_steps: int = 12_000
    least_gain: float = 0.005
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
            raise ConfigError(
                "Training configuration", "a step or batch count below 1", "at least 1 step, 1 lesion, 1 normal slice"
            )


@dataclass(frozen=True)
class ClassifierConfig(BaselineConfig):
    """ResNet-18 that tells lesion from normal slices: CAM (Zhou et al., 2016), Grad-CAM (Selvaraju et al., 2017).

    :param width: channels of its first block (ResNet-18: 64).
    """

    width: int = 64
    weight_decay: float = 1e-4


@dataclass(frozen=True)
class CriticConfig(BaselineConfig):
    """What the methods with a Wasserstein critic share.

    :param penalty: λ of the gradient penalty.
    :param alpha_adversarial: weight of the critic's opinion.
    :param channels, widest: of the U-Net, as of the decomposition it is compared with.
    :param matched_normals: as of :class:`LesionDecompLib.training.config.LesionConfig`: the critic cannot go by the
        lungs' shape. Noise, blur and bright rims, which a critic sees at once, are left out of the augmentation.
    """

    augmentation: Augmentation = field(default_factory=lambda: Augmentation(noise=0.0, blur=0.0, rim=0.0))
    matched_normals: int = 24
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

    steps: int = 28_000
    val_every: int = 250
    patience_steps: int = 9500
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-3
    critic_learning_rate: float = 1e-3
    betas: tuple[float, ...] = (0.0, 0.9)
    critic_steps: int = 5
    critic_steps_often: int = 100
    often_first: int = 25
    often_every: int = 100
    alpha_map: float = 100.0


@dataclass(frozen=True)
class BiomarkerConfig(CriticConfig):
    """BL, biomarker localization by classifier and critic together (Zhang et al., MICCAI 2019).

    :param alpha_class: weight of the classifier's opinion of G(x).
    :param alpha_same: weight of mean \\|x - G(x)\\|.
    """

    steps: int = 58_000
    val_every: int = 500
    patience_steps: int = 19_500
    betas: tuple[float, ...] = (0.5, 0.9)
    alpha_adversarial: float = 0.05
    alpha_class: float = 0.5
    alpha_same: float = 10.0


BASELINES: dict[str, type[BaselineConfig]] = {
    "classifier": ClassifierConfig,
    "va-gan": VaGanConfig,
    "biomarker": BiomarkerConfig,
}
