"""Training configurations: typed, validated, read from TOML or the command line; unknown keys are refused."""

from __future__ import annotations

import math
import tomllib
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, get_type_hints

from ..errors import ConfigError
from .config_ranges import out_of_range

MAX_FILE_BYTES = 1 << 20
STAGE_KEYS = ("self_steps", "identity_steps", "rise_steps")  # when the stages of a lesion training begin and end
STAGE = "Training configuration"
BASELINES = ("classifier", "va-gan", "biomarker")  # methods to compare with
PRESET_NAMES = ("default", "paper", "paper-full", "lungs", *BASELINES)


class Settings(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Config = TypeVar("Config", bound=Settings)


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

    rotation: float = 15.0
    scale: float = 0.15
    shift: float = 4.0
    flip: float = 0.5
    offset: float = 0.08
    gain: float = 0.08
    noise: float = 0.06
    blur: float = 0.8
    rim: float = 0.5
    gravity: float = 0.1


@dataclass(frozen=True)
class NetworkConfig:
    """Arguments of :class:`LesionDecompLib.models.networks.DecompositionNet`."""

    channels: int = 16
    levels: int = 5
    widest: int = 128
    norm: str = "batch"
    gated: bool = True
    shared: bool = False
    lesion_decoder: bool = True
    stem: int = 2
    normal_decoder: bool = True


@dataclass(frozen=True)
class LesionConfig:
    """How the decomposition is trained. Equation numbers are those of Yang et al. (ISBI 2021).

    :param steps: generator updates.
    :param crop: height and width of the window around the lungs, pixels; empty takes whole slices.
    :param shrink: the slices are averaged down by this factor first.
    :param alpha_adversarial: α1 of equation 5.
    :param alpha_reconstruction: α2.
    :param alpha_normal: α3.
    :param penalty: λ of equation 3.
    :param norm_p: p of equations 1 and 2.
    :param edge_weighting: the released code's (1 + Sobel/255)² pixel weight.
    :param identity_steps: first steps with L_r and L_n alone, at the first learning rate: E, G1 and G2 learn to copy.
    :param rise_steps: steps from there over which α1 rises to its value, while the critic learns already.
    :param matched_normals: normal slices are drawn from this many that are nearest to a lesion slice of the batch by
        the shape of the lungs, so that the critic cannot go by it; 0 draws from all.
    :param val_every: steps between two looks at the average precision on ``val``; the weights where it was best are
        kept. 0, or a ``val`` without pixel masks: never, the last weights are kept.
    :param patience_steps: end the training where it gained less than ``least_gain`` in so many steps; 0 does not.
    :param alpha_image: weight of the image-level term L_m on the lesion decoder.
    :param top_fraction: share of the lung's pixels that make a slice's score.
    :param alpha_sparse: weight of the mean heat of normal slices.
    :param alpha_self: weight of learning from the averaged network's own heat on lesion slices, from step
        ``self_steps`` on: above ``self_positive`` it counts as lesion, below ``self_negative`` as healthy, between not.
        With teachers it weighs learning from their mean heat, from the first step on.
    :param judge_steps: updates of the classifier that judges, after training, whether G1's slices look healthy.
    :param batch_painted: normal slices with lesions painted in.
    :param alpha_painted: weight of their terms.
    """

    seed: int = 0
    steps: int = 3000
    batch_lesion: int = 8
    batch_normal: int = 4
    batch_painted: int = 4
    judge_steps: int = 400
    crop: tuple[int, ...] = (160, 192)
    shrink: int = 1
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-5
    betas: tuple[float, ...] = (0.9, 0.99)
    ema: float = 0.998
    alpha_adversarial: float = 0.005
    alpha_reconstruction: float = 1.0
    alpha_normal: float = 1.0
    alpha_image: float = 0.5
    alpha_sparse: float = 0.1
    alpha_painted: float = 1.0
    alpha_self: float = 0.5
    self_steps: int = 1500
    self_positive: float = 0.3
    self_negative: float = 0.1
    top_fraction: float = 0.02
    penalty: float = 10.0
    norm_p: int = 1
    edge_weighting: bool = False
    identity_steps: int = 0
    rise_steps: int = 0
    matched_normals: int = 0
    val_every: int = 0
    patience_steps: int = 0
    least_gain: float = 0.005
    critic: bool = True
    critic_channels: int = 16
    critic_steps: int = 1
    critic_every: int = 4
    critic_learning_rate: float = 2e-4
    network: NetworkConfig = field(default_factory=NetworkConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.norm_p not in (1, 2):
            raise ConfigError(STAGE, f"norm_p = {self.norm_p}", "1 or 2")
        if self.steps < 1 or self.batch_lesion < 1 or self.batch_normal < 1 or self.batch_painted < 0:
            raise ConfigError(STAGE, "a step or batch count below 1", "at least 1 step, 1 lesion, 1 normal slice")
        if not 0 < self.top_fraction <= 1:
            raise ConfigError(STAGE, f"top_fraction = {self.top_fraction:g}", "a share in (0, 1]")
        block = self.shrink * self.network.stem * 2 ** (self.network.levels - 1)
        if any(side % block for side in self.crop):
            raise ConfigError(STAGE, f"crop = {list(self.crop)}", f"sides that are multiples of {block}")
        if self.critic and not self.network.normal_decoder:
            raise ConfigError(STAGE, "a critic without normal decoder", "critic = false: it judges G1 alone")

    def lasting(self, steps: int) -> LesionConfig:
        """The same schedule in so many steps: what begins half way through still does."""
        scaled = {key: round(getattr(self, key) * steps / self.steps) for key in STAGE_KEYS}
        return replace(self, steps=steps, **scaled)


PRESETS: dict[str, LesionConfig] = {
    # Equations 1 to 5 and two decoders, in a width and a resolution that two cores can train until it works: a critic
    # that cannot go by the lungs' shape, a generator that can copy, then a stronger adversarial term, then a quiet end.
    "paper": LesionConfig(
        steps=14_000,
        batch_lesion=4,
        batch_normal=4,
        batch_painted=0,
        shrink=2,
        learning_rate=3e-4,
        betas=(0.5, 0.9),
        ema=0.9995,
        alpha_adversarial=0.5,
        alpha_reconstruction=100.0,
        alpha_normal=100.0,
        alpha_image=0.0,
        alpha_sparse=0.0,
        alpha_painted=0.0,
        alpha_self=0.0,
        identity_steps=6000,
        rise_steps=1000,
        matched_normals=24,
        val_every=250,
        critic_every=1,
        network=NetworkConfig(norm="none", gated=False, stem=1),
        augmentation=Augmentation(noise=0.0, blur=0.0, rim=0.0),
    ),
    # The same with the paper's constants, widths and resolution: many hours on a GPU.
    "paper-full": LesionConfig(
        steps=40_000,
        batch_lesion=4,
        batch_normal=4,
        batch_painted=0,
        crop=(),
        learning_rate=2e-4,
        final_learning_rate=2e-4,
        betas=(0.5, 0.9),
        ema=0.0,
        alpha_adversarial=0.01,
        alpha_reconstruction=100.0,
        alpha_normal=100.0,
        alpha_image=0.0,
        alpha_sparse=0.0,
        alpha_painted=0.0,
        alpha_self=0.0,
        critic_channels=64,
        critic_every=1,
        network=NetworkConfig(channels=64, widest=1024, gated=False, stem=1),
        augmentation=Augmentation(*[0.0] * len(fields(Augmentation))),
    ),
    "default": LesionConfig(),
}


def load_config(base: Config, file: str | Path | None = None, overrides: list[str] | None = None) -> Config:
    """A configuration: ``base``, changed by a TOML file, changed by ``key=value`` texts (``network.channels=8``).

    :raises LesionDecompError: unreadable file, unknown key, a value of the wrong type.

    >>> config = load_config(PRESETS["default"], overrides=["steps=500", "network.channels=8"])
    >>> config.steps, config.network.channels
    (500, 8)
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            if not Path(file).is_file():
                raise OSError("no regular file")
            if Path(file).stat().st_size > MAX_FILE_BYTES:
                raise ValueError("more than 1 MiB")
            values = tomllib.loads(Path(file).read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(STAGE, f"a file that cannot be read ({error})", "a TOML file") from error
    for text in overrides or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(STAGE, f"'{text}'", "key=value")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except (ValueError, RecursionError):
            parsed = value
        *tables, last = key.strip().split(".")
        table = values
        for part in tables:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise ConfigError(STAGE, f"'{text}'", f"no value of its own for '{part}'")
        table[last] = parsed
    if isinstance(base, LesionConfig):
        values = _copying_scaled(base, values)
    # All at once: settings are checked together, whatever their order.
    return change(base, values)


def _copying_scaled(base: LesionConfig, values: dict[str, Any]) -> dict[str, Any]:
    """``values`` with the share of copying steps kept, where other ``steps`` and none of these are asked for."""
    steps = values.get("steps")
    if type(steps) is not int or not 0 < steps < 2**53:
        return values
    return {key: round(getattr(base, key) * steps / base.steps) for key in ("identity_steps", "rise_steps")} | values


def change(config: Config, values: dict[str, Any]) -> Config:
    """A copy of a (nested) configuration with some values changed; types are checked.

    :raises LesionDecompError: an unknown key, or a value of the wrong type or out of range.
    """
    kinds = get_type_hints(type(config))
    known = {item.name for item in fields(config)}
    updates = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(STAGE, f"the unknown key '{key[:60]}'", f"one of {', '.join(sorted(known))}")
        current = getattr(config, key)
        if is_dataclass(current) and not isinstance(current, type):
            if not isinstance(value, dict):
                raise ConfigError(STAGE, f"'{key}' = {_short(value)}", "a table of settings")
            updates[key] = change(current, value)
        else:
            updates[key] = _typed(key, value, kinds[key], current)
    return replace(config, **updates)


def as_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain values, for JSON."""
    return asdict(config)


def _typed(key: str, value: Any, kind: Any, current: Any) -> Any:
    cast = _cast(value, kind, current)
    expected = f"a value like {current!r}" if cast is None else out_of_range(key, cast)
    if expected:
        raise ConfigError(STAGE, f"'{key}' = {_short(value)}", expected)
    return cast


def _cast(value: Any, kind: Any, current: Any) -> Any:
    # None for a value of another type.
    if isinstance(current, tuple):
        kinds = (int,) if kind == tuple[int, ...] else (int, float)
        if isinstance(value, list | tuple) and all(type(item) in kinds for item in value):
            return tuple(value)
    elif kind is float and type(value) in (int, float):
        return float(value) if abs(value) < 2**1000 else math.inf
    elif type(value) is kind:
        return value
    return None


def _short(value: Any) -> str:
    try:
        return repr(value)[:60]
    except (ValueError, RecursionError):  # a number of very many digits
        return "something too long to show"
