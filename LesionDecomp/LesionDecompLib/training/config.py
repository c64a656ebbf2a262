"""How the decomposition is trained: its settings by group, and the presets."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from ..errors import ConfigError
from ..models.records import SHRINKS
from .settings import (
    STAGE,
    Betas,
    Config,
    Count,
    Crop,
    Extra,
    Factor,
    Items,
    Levels,
    Real,
    Seed,
    Steps,
    change,
    grouped,
    read_values,
)

SIDE_MULTIPLE = 32  # of a slice, pixels
BASELINES = ("classifier", "va-gan", "biomarker")  # methods to compare with
PRESET_NAMES = ("default", "paper", "paper-large", "paper-full", "lungs", *BASELINES)


@dataclass(frozen=True)
class Schedule:
    """When what happens.

    :param steps: generator updates.
    :param identity_steps: first steps with L_r and L_n alone, at the first learning rate: E, G1 and G2 learn to copy.
    :param rise_steps: steps from there over which α1 rises to its value, while the critic learns already.
    :param late_steps: last steps, in which α1 is ``weights.late_adversarial``: with a rate that has fallen, more of it
        does no harm.
    :param val_every: steps between two looks at the average precision on ``val``; the weights where it was best are
        kept. 0, or a ``val`` without pixel masks: never, the last weights are kept.
    :param patience_steps: end the training where it gained less than ``least_gain`` in so many steps; 0 does not.
    :param judge_steps: updates of the classifier that judges, after training, whether G1's slices look healthy.
    """

    steps: Count = 3000
    identity_steps: Steps = 0
    rise_steps: Steps = 0
    late_steps: Steps = 0
    val_every: Steps = 0
    patience_steps: Steps = 0
    least_gain: Real = 0.005
    judge_steps: Steps = 400

    STAGES: ClassVar[tuple[str, ...]] = ("identity_steps", "rise_steps", "late_steps")  # shares of the steps


@dataclass(frozen=True)
class Batch:
    """What a step is made of.

    :param lesion, normal: slices of each label.
    :param painted: normal slices with lesions painted in.
    :param matched_normals: normal slices are drawn from this many that are nearest to a lesion slice of the batch by
        the shape of the lungs, so that the critic cannot go by it; 0 draws from all.
    :param crop: height and width of the window around the lungs, pixels; empty takes whole slices.
    :param shrink: the slices are averaged down by this factor first.
    :param more: further training sets, folders separated by commas, whose ``train`` slices are learned from too.
    """

    lesion: Items = 8
    normal: Items = 4
    painted: Extra = 4
    matched_normals: Steps = 0
    crop: Crop = (160, 192)
    shrink: Factor = 1
    more: str = ""

    @property
    def more_folders(self) -> list[Path]:
        """The folders of the further training sets."""
        return [Path(name.strip()) for name in self.more.split(",") if name.strip()]


@dataclass(frozen=True)
class Optimizer:
    """Adam for E, G1 and G2.

    :param learning_rate, final_learning_rate: at the beginning and, along a half cosine, at the end.
    :param ema: decay of the averaged weights; 0 averages nothing.
    """

    learning_rate: Real = 1e-3
    final_learning_rate: Real = 1e-5
    betas: Betas = (0.9, 0.99)
    ema: Real = 0.998


@dataclass(frozen=True)
class Weights:
    """Weights of the loss's terms, and their kind. Equation numbers are those of Yang et al. (ISBI 2021).

    :param adversarial, late_adversarial: α1 of equation 5, and in the last ``schedule.late_steps``.
    :param reconstruction: α2.
    :param normal: α3.
    :param image: of the image-level term L_m on the lesion decoder.
    :param sparse: of the mean heat of normal slices.
    :param painted: of the terms of slices with lesions painted in.
    :param top_fraction: share of the lung's pixels that make a slice's score in L_m.
    :param norm_p: p of equations 1 and 2.
    :param edge_weighting: the released code's (1 + Sobel/255)² pixel weight.
    """

    adversarial: Real = 0.005
    reconstruction: Real = 1.0
    normal: Real = 1.0
    image: Real = 0.5
    sparse: Real = 0.1
    painted: Real = 1.0
    top_fraction: Real = 0.02
    norm_p: Steps = 1
    edge_weighting: bool = False
    late_adversarial: Real = 0.0


@dataclass(frozen=True)
class SelfTraining:
    """Learning from the averaged network's own heat on lesion slices; with teachers from their mean heat.

    :param weight: of the term.
    :param start: first step of it; with teachers it is there from the beginning.
    :param positive, negative: heat above and below which a pixel counts as lesion and as healthy; between, not.
    """

    weight: Real = 0.5
    start: Steps = 1500
    positive: Real = 0.3
    negative: Real = 0.1


@dataclass(frozen=True)
class CriticSettings:
    """The critic D.

    :param enabled: False leaves the adversarial term out.
    :param steps: its updates each time.
    :param every: generator updates between them.
    :param penalty: λ of equation 3.
    """

    enabled: bool = True
    channels: Items = 16
    steps: Steps = 1
    every: Steps = 4
    learning_rate: Real = 2e-4
    penalty: Real = 10.0


@dataclass(frozen=True)
class NetworkConfig:
    """Arguments of :class:`LesionDecompLib.models.networks.DecompositionNet`."""

    channels: Items = 16
    levels: Levels = 5
    widest: Items = 128
    norm: str = "batch"
    gated: bool = True
    shared: bool = False
    lesion_decoder: bool = True
    stem: Factor = 2
    normal_decoder: bool = True


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes; 0 switches one off.

    :param rotation: largest turn, degrees.
    :param scale: largest relative change of size.
    :param shift: largest shift, pixels.
    :param flip: probability of a left-right flip.
    :param offset: standard deviation of a gray offset, in units of the [-1, 1] range. The bound of the slices' lung
        window is known to ±60 HU only, which is ±0.10 of this range.
    :param gain: standard deviation of a relative change of contrast about the healthy-lung gray.
    :param noise: largest standard deviation of white noise.
    :param blur: largest Gaussian blur, pixels.
    :param rim: probability of a bright rim, one or two pixels wide in places: lung masks of other makers take in some
        chest wall, those of the slices none.
    :param gravity: standard deviation of a density gradient from front to back, in units of the [-1, 1] range over
        100 pixels: supine lungs are denser behind, by scanner table, breath and age.
    """

    rotation: Real = 15.0
    scale: Real = 0.15
    shift: Real = 4.0
    flip: Real = 0.5
    offset: Real = 0.08
    gain: Real = 0.08
    noise: Real = 0.06
    blur: Real = 0.8
    rim: Real = 0.5
    gravity: Real = 0.1


@dataclass(frozen=True)
class LesionConfig:
    """All settings of a lesion training."""

    seed: Seed = 0
    schedule: Schedule = field(default_factory=Schedule)
    batch: Batch = field(default_factory=Batch)
    optimizer: Optimizer = field(default_factory=Optimizer)
    weights: Weights = field(default_factory=Weights)
    self_training: SelfTraining = field(default_factory=SelfTraining)
    critic: CriticSettings = field(default_factory=CriticSettings)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)

    # Keys without groups, as runs recorded them before there were groups.
    FORMER: ClassVar[dict[str, tuple[str, str]]] = {
        **{item.name: ("schedule", item.name) for item in fields(Schedule)},
        **{item.name: ("optimizer", item.name) for item in fields(Optimizer)},
        **{f"batch_{name}": ("batch", name) for name in ("lesion", "normal", "painted")},
        **{name: ("batch", name) for name in ("matched_normals", "crop", "shrink")},
        **{
            f"alpha_{name}": ("weights", name)
            for name in ("adversarial", "reconstruction", "normal", "image", "sparse", "painted")
        },
        **{name: ("weights", name) for name in ("top_fraction", "norm_p", "edge_weighting")},
        "alpha_self": ("self_training", "weight"),
        "self_steps": ("self_training", "start"),
        "self_positive": ("self_training", "positive"),
        "self_negative": ("self_training", "negative"),
        "critic": ("critic", "enabled"),
        **{f"critic_{name}": ("critic", name) for name in ("channels", "steps", "every", "learning_rate")},
        "penalty": ("critic", "penalty"),
    }

    def __post_init__(self) -> None:
        if self.weights.norm_p not in (1, 2):
            raise ConfigError(STAGE, f"weights.norm_p = {self.weights.norm_p}", "1 or 2")
        if not 0 < self.weights.top_fraction <= 1:
            raise ConfigError(STAGE, f"weights.top_fraction = {self.weights.top_fraction:g}", "a share in (0, 1]")
        block = self.batch.shrink * self.network.stem * 2 ** (self.network.levels - 1)
        if any(side % block for side in self.batch.crop):
            raise ConfigError(STAGE, f"batch.crop = {list(self.batch.crop)}", f"sides that are multiples of {block}")
        if block > SIDE_MULTIPLE:
            found = f"batch.shrink · network.stem · 2^(network.levels - 1) = {block}"
            raise ConfigError(STAGE, found, f"at most {SIDE_MULTIPLE}, as whole slices have it")
        if self.batch.shrink not in SHRINKS:
            raise ConfigError(STAGE, f"batch.shrink = {self.batch.shrink}", f"one of {', '.join(map(str, SHRINKS))}")
        if self.network.gated and not self.network.lesion_decoder:
            raise ConfigError(
                STAGE, "a gated network without lesion decoder", "network.gated = false: the gate is a part of it"
            )
        if self.critic.enabled and not self.network.normal_decoder:
            raise ConfigError(STAGE, "a critic without normal decoder", "critic.enabled = false: it judges G1 alone")

    @property
    def steps(self) -> int:
        """Generator updates."""
        return self.schedule.steps

    @property
    def ema(self) -> float:
        """Decay of the averaged weights."""
        return self.optimizer.ema

    def lasting(self, steps: int) -> LesionConfig:
        """The same schedule in so many steps: what begins half way through still does."""

        def scaled(count: int) -> int:
            return round(count * steps / self.steps)

        stages = {key: scaled(getattr(self.schedule, key)) for key in Schedule.STAGES}
        return replace(
            self,
            schedule=replace(self.schedule, steps=steps, **stages),
            self_training=replace(self.self_training, start=scaled(self.self_training.start)),
        )


# Equations 1 to 5 alone: no image-level term, no painted lesions, nothing learned from heat.
_EQUATIONS = Weights(adversarial=0.5, reconstruction=100.0, normal=100.0, image=0.0, sparse=0.0, painted=0.0)

# Equations 1 to 5 and two decoders, in a width and a resolution that two cores can train until it works: a critic that
# cannot go by the lungs' shape, a generator that can copy, then a stronger adversarial term, then a quiet end with one
# that is stronger again.
_PAPER = LesionConfig(
    schedule=Schedule(steps=14_000, identity_steps=6000, rise_steps=1000, late_steps=3250, val_every=250),
    batch=Batch(lesion=4, normal=4, painted=0, matched_normals=24, shrink=2),
    optimizer=Optimizer(learning_rate=3e-4, betas=(0.5, 0.9), ema=0.9995),
    weights=replace(_EQUATIONS, late_adversarial=4.0),
    self_training=SelfTraining(weight=0.0),
    critic=CriticSettings(every=1),
    network=NetworkConfig(norm="none", gated=False, stem=1),
    augmentation=Augmentation(noise=0.0, blur=0.0, rim=0.0),
)

PRESETS: dict[str, LesionConfig] = {
    "paper": _PAPER,
    # The same in the paper's widths and the slices' full resolution: minutes on a data center's GPU. It learns in fewer
    # steps, and to draw lesions more closely.
    "paper-large": replace(
        _PAPER,
        schedule=Schedule(steps=8000, identity_steps=3429, rise_steps=571, late_steps=1857, val_every=250),
        batch=replace(_PAPER.batch, shrink=1),
        critic=replace(_PAPER.critic, channels=64),
        network=replace(_PAPER.network, channels=64, widest=1024),
    ),
    # The paper's constants too, without any of what makes it learn: many hours on a GPU.
    "paper-full": LesionConfig(
        schedule=Schedule(steps=40_000),
        batch=Batch(lesion=4, normal=4, painted=0, crop=()),
        optimizer=Optimizer(learning_rate=2e-4, final_learning_rate=2e-4, betas=(0.5, 0.9), ema=0.0),
        weights=replace(_EQUATIONS, adversarial=0.01),
        self_training=SelfTraining(weight=0.0),
        critic=CriticSettings(channels=64, every=1),
        network=NetworkConfig(channels=64, widest=1024, gated=False, stem=1),
        augmentation=Augmentation(*[0.0] * len(fields(Augmentation))),
    ),
    "default": LesionConfig(),
}


def load_config(base: Config, file: str | Path | None = None, overrides: list[str] | None = None) -> Config:
    """A configuration: ``base``, changed by a TOML file, changed by ``key=value`` texts (``network.channels=8``).

    :raises LesionDecompError: unreadable file, unknown key, a value of the wrong type.

    >>> config = load_config(PRESETS["default"], overrides=["schedule.steps=500", "network.channels=8"])
    >>> config.schedule.steps, config.network.channels
    (500, 8)
    """
    values = grouped(type(base), read_values(file, overrides))
    if isinstance(base, LesionConfig):
        values = _stages_scaled(base, values)
    # All at once: settings are checked together, whatever their order.
    return change(base, values)


def _stages_scaled(base: LesionConfig, values: dict[str, Any]) -> dict[str, Any]:
    """``values`` with the shares of a training's stages kept, where other ``steps`` and none of these are asked for."""
    schedule = values.get("schedule")
    steps = schedule.get("steps") if isinstance(schedule, dict) else None
    if not isinstance(schedule, dict) or type(steps) is not int or not 0 < steps < 2**53:
        return values
    kept = {key: round(getattr(base.schedule, key) * steps / base.steps) for key in Schedule.STAGES}
    return {**values, "schedule": kept | schedule}
