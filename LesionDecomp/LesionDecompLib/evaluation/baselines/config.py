"""Configurations of the baselines; defaults are what ``lesiondecomp train --preset NAME`` trains.

``steps`` are the most that are trained, about six hours of one core; a training ends before where average precision on
``val`` has gained less than ``least_gain`` in ``patience_steps``, about two hours.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...training.config import Augmentation
from ...training.settings import Betas, Count, Crop, Factor, Items, Real, Seed, Steps


@dataclass(frozen=True)
class BaselineConfig:
    """What all baselines share.

    :param crop: height and width of the window around the lungs, pixels.
    :param shrink: slices are averaged down by this factor.
    :param val_every, patience_steps, least_gain: as of :class:`LesionDecompLib.training.config.LesionConfig`.
    """

    seed: Seed = 0
    steps: Count = 36_000
    val_every: Steps = 1000
    patience_steps: Steps = 12_000
    least_gain: Real = 0.005
    batch_lesion: Items = 8
    batch_normal: Items = 8
    crop: Crop = (160, 192)
    shrink: Factor = 2
    learning_rate: Real = 1e-3
    final_learning_rate: Real = 1e-5
    betas: Betas = (0.9, 0.99)
    ema: Real = 0.998
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True)
class ClassifierConfig(BaselineConfig):
    """ResNet-18 that separates lesion from normal slices: CAM (Zhou et al., 2016), Grad-CAM (Selvaraju et al., 2017).

    :param width: channels of its first block (ResNet-18: 64).
    """

    width: Items = 64
    weight_decay: Real = 1e-4


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
    matched_normals: Steps = 24
    channels: Items = 16
    widest: Items = 128
    norm: str = "batch"
    critic_channels: Items = 16
    critic_learning_rate: Real = 2e-4
    penalty: Real = 10.0
    alpha_adversarial: Real = 1.0


@dataclass(frozen=True)
class VaGanConfig(CriticConfig):
    """VA-GAN (Baumgartner et al., CVPR 2018).

    :param critic_steps: critic updates for each update of the map.
    :param critic_steps_often: instead, for the first ``often_first`` updates and for every ``often_every``-th.
    :param alpha_map: weight of mean \\|M(x)\\|.
    """

    steps: Count = 28_000
    val_every: Steps = 250
    patience_steps: Steps = 9500
    learning_rate: Real = 1e-3
    final_learning_rate: Real = 1e-3
    critic_learning_rate: Real = 1e-3
    betas: Betas = (0.0, 0.9)
    critic_steps: Steps = 5
    critic_steps_often: Steps = 100
    often_first: Steps = 25
    often_every: Count = 100
    alpha_map: Real = 100.0


@dataclass(frozen=True)
class BiomarkerConfig(CriticConfig):
    """BL, biomarker localization by classifier and critic together (Zhang et al., MICCAI 2019).

    :param alpha_class: weight of the classifier's opinion of G(x).
    :param alpha_same: weight of mean \\|x - G(x)\\|.
    """

    steps: Count = 58_000
    val_every: Steps = 500
    patience_steps: Steps = 19_500
    betas: Betas = (0.5, 0.9)
    alpha_adversarial: Real = 0.05
    alpha_class: Real = 0.5
    alpha_same: Real = 10.0


BASELINES: dict[str, type[BaselineConfig]] = {
    "classifier": ClassifierConfig,
    "va-gan": VaGanConfig,
    "biomarker": BiomarkerConfig,
}
