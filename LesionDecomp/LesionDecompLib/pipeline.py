"""The main job: a chest CT goes in; lungs, lesion heat, lesions and statistics come out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .ct.checks import check_chest_ct
from .ct.oddity import Oddity
from .ct.outside import with_air_outside
from .ct.plausibility import heat_warnings, input_warnings
from .ct.sparse import sparse_zeros
from .ct.volume import Volume
from .errors import ConfigError, InputError
from .libraries import libraries_named
from .measurement.live import LiveLesions
from .measurement.region_rows import ModelMeasurements, RegionMeasurements, RegionTallies
from .measurement.regions import GivenRegions
from .measurement.review import Review
from .measurement.reviewed import PlacedReview
from .measurement.statistics import RegionStatistics, Tally
from .models.bundle import ModelBundle, find_bundle
from .models.device import choose_device
from .progress import Cancel, Progress, check_cancel, unwatched
from .segmentation.lesions import lung_box
from .threads import return_freed_memory

if TYPE_CHECKING:
    from .models.runtime import ReadyNetwork

DEFAULT_MIN_VOLUME_ML = 0.1
DEFAULT_BATCH_SIZE = 8
Computed = TypeVar("Computed")
LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SegmentResult:
    """What a run gives; all arrays on the input's grid ``(k, j, i)``.

    :param heat: float32 in [0, 1], 0 outside the lungs.
    :param lungs: uint8, 1 right, 2 left.
    :param lesions: uint8, 0 / 1.
    :param box: of the lungs; all three are 0 outside.
    :param statistics: 12 rows, see :func:`LesionDecompLib.measurement.statistics.lesion_statistics`.
    :param threshold: on the heat.
    :param min_volume_ml: smaller lesions were removed, mL.
    :param device: in words.
    :param warnings: a sentence each.
    :param timings_s: seconds for each stage.
    :param lung_bundle: None when a lung mask was supplied.
    :param precision: that each network computed in: ``lungs`` (unless a mask was supplied), ``lesions``.
    :param engine: that computed each network, ``"torch"`` or ``"onnx"``.
    :param regions: measurements of zones, halves, and the regions that were given; None where nobody measured them.
    :param regions_sha256: of the regions that were given; empty where none were.
    :param healthy: int16 HU, the CT without its lesions (:func:`.segmentation.healthy.healthy_version`); None where
        nobody asked for it.
    :param review: decisions of a reader, which lesions, statistics and regions follow.
    :param model: what the model alone had found; None without a review.
    :param lung_tally: what no threshold changes, of the volume as it was given; None where air was put around it.
    """

    heat: np.ndarray
    lungs: np.ndarray
    lesions: np.ndarray
    box: tuple[slice, slice, slice]
    statistics: list[RegionStatistics]
    threshold: float
    min_volume_ml: float
    device: str
    warnings: list[str]
    timings_s: dict[str, float]
    lesion_bundle: ModelBundle
    lung_bundle: ModelBundle | None
    precision: dict[str, str] = field(default_factory=dict)
    engine: dict[str, str] = field(default_factory=dict)
    regions: RegionMeasurements | None = None
    regions_sha256: str = ""
    healthy: np.ndarray | None = None
    review: Review | None = None
    model: ModelMeasurements | None = None
    lung_tally: Tally | None = None

    def boxed(self, name: str) -> np.ndarray:
        """``"heat"``, ``"lungs"``, ``"lesions"`` or ``"healthy"`` inside :attr:`box`."""
        array: np.ndarray = getattr(self, name)
        return array[self.box]

    @property
    def has_healthy(self) -> bool:
        """Whether the healthy version of the CT was made."""
        return self.healthy is not None


class Segmenter:
    """Loads the bundles once and segments any number of volumes.

    :param lesion_bundle, lung_bundle: name, path or loaded bundle; None for the ones that ship.
    :param device: see :func:`LesionDecompLib.models.device.choose_device`.
    :param batch_size: slices at a time.
    :param precision: ``"auto"``: see :func:`.models.runtime.network_precision`; ``"float32"``: nothing less.
    :param engine: see :func:`.models.runtime.ready_network`.
    :raises LesionDecompError: a bundle, device or engine that cannot be used.
    """

    def __init__(
        self,
        lesion_bundle: ModelBundle | str | Path | None = None,
        lung_bundle: ModelBundle | str | Path | None = None,
        device: str = "auto",
        batch_size: int = DEFAULT_BATCH_SIZE,
        precision: str = "auto",
        engine: str = "auto",
    ) -> None:
        from .models.runtime import ENGINES, PRECISIONS  # not before: it loads torch

        if batch_size < 1:
            raise ConfigError(
                "Segmentation", f"a batch size of {batch_size}", "at least 1 slice", code="batch_size_range"
            )
        for name, asked, known in (("precision", precision, PRECISIONS), ("engine", engine, ENGINES)):
            if asked not in known:
                expected = f"one of {', '.join(known)}"
                raise ConfigError("Segmentation", f"the {name} '{asked}'", expected, code=f"{name}_unknown")
        self.device, self.device_in_words = choose_device(device)
        self.precision, self.engine = precision, engine
        self.batch_size, self._halved = batch_size, False
        self._shortages: list[str] = []  # of memory, since the last result
        self.lesion_bundle = _bundle(lesion_bundle, "lesions")
        self.lung_bundle = _bundle(lung_bundle, "lungs")
        self._networks: dict[str, ReadyNetwork] = {}

    @libraries_named()
    def run(
        self,
        volume: Volume,
        lung_mask: np.ndarray | None = None,
        threshold: float | None = None,
        min_volume_ml: float = DEFAULT_MIN_VOLUME_ML,
        progress: Progress | None = None,
        cancelled: Cancel | None = None,
        regions: GivenRegions | None = None,
        healthy: bool = False,
        review: Review | None = None,
    ) -> SegmentResult:
        """Segment one volume, which is not changed.

        :param lung_mask: ``(k, j, i)`` on the volume's grid: one label that is lung, or 1 (right) and 2 (left); see
            :func:`.segmentation.lungs.given.lungs_from_mask`.
        :param threshold: on the heat, (0, 1]; None for the lesion bundle's own.
        :param min_volume_ml: lesions smaller than this are left out, mL.
        :param progress: called with (stage, slices done, slices in all).
        :param cancelled: asked once a batch.
        :param regions: parts of the lungs to measure beside zones and halves, on the volume's grid.
        :param healthy: make the healthy version of the CT as well.
        :param review: decisions of a reader about this very CT, to be applied to the lesions.
        :raises LesionDecompError: not a chest CT, no lungs, a mask that does not fit, a parameter out of range.
        :raises Cancelled: ``cancelled`` returned True.
        """
        threshold = self.lesion_bundle.default_threshold if threshold is None else float(threshold)
        _check_parameters(threshold, min_volume_ml)
        if healthy:
            from .segmentation.healthy import check_healthy_support  # not before: it loads torch

            check_healthy_support(self.lesion_bundle)
        timings: dict[str, float] = {}
        report = progress if progress is not None else unwatched
        with _timed(timings, "check"):
            given = volume
            volume, warnings = with_air_outside(given)
            check_chest_ct(volume)
            warnings += input_warnings(volume)
        view = volume.view
        with _timed(timings, "lungs"), _memory_errors("Lung segmentation", volume):
            try:
                lungs, oddities = self._lungs(volume, lung_mask, progress, cancelled)
            except InputError as error:
                # What contradicts the header may be the reason.
                turned = [text for text in warnings if getattr(text, "code", "").startswith("anatomy_")]
                if not turned:
                    raise
                advice = " ".join([*turned, error.advice])
                raise InputError(error.stage, error.found, error.expected, advice, error.remedy, error.code) from error
            warnings += oddities
        with _timed(timings, "heat"), _memory_errors("Lesion heat", volume):
            box = lung_box(view.to_axial(lungs))
            heat, oddities = self._heat(volume, lungs, box, progress=progress, cancelled=cancelled)
            warnings += oddities
        version = None
        if healthy:
            with _timed(timings, "healthy"), _memory_errors("Healthy version", volume):
                version = self._healthy(volume, lungs, box, heat, progress=progress, cancelled=cancelled)
        warnings += self._shortages
        self._shortages = []
        check_cancel(cancelled, "Segmentation")
        report("lesions", 0, 1)
        with _timed(timings, "lesions"):
            hu, sides, warmth = (view.to_axial(array) for array in (volume.array, lungs, heat))
            live = LiveLesions(hu, sides, warmth, volume.voxel_volume_ml, box)
            found = own = live.at(threshold, min_volume_ml)
            if review is not None:
                placed = PlacedReview.of(live, view, review)
                found = placed.at(live, threshold, min_volume_ml)
                warnings += placed.warnings
            lesions = sparse_zeros(lungs.shape, lungs.dtype)
            found.paint(view.to_axial(lesions), is_empty=True)
        report("lesions", 1, 1)
        check_cancel(cancelled, "Segmentation")
        report("statistics", 0, 1)
        with _timed(timings, "statistics"):
            statistics = found.statistics()
            labels = view.to_axial(regions.labels) if regions is not None else None
            tallies = RegionTallies.of(live, labels, regions)
            measured = tallies.at(found)
            model = ModelMeasurements(own.statistics(), tallies.at(own)) if review is not None else None
            warnings += tallies.warnings
        report("statistics", 1, 1)
        warnings += heat_warnings(statistics[0].values)
        LOG.info("Segmented %s voxels on %s in %.1f s", volume.array.size, self.device, sum(timings.values()))
        used = {"lesions": self.lesion_bundle} if lung_mask is not None else self._bundles()
        return SegmentResult(
            heat=heat,
            lungs=lungs,
            lesions=lesions,
            box=view.array_box(box),
            statistics=statistics,
            threshold=threshold,
            min_volume_ml=float(min_volume_ml),
            device=self.device_in_words,
            warnings=warnings,
            timings_s=timings,
            lesion_bundle=self.lesion_bundle,
            lung_bundle=used.get("lungs"),
            precision={task: self._ready(bundle).precision_name for task, bundle in used.items()},
            engine={task: self._ready(bundle).engine for task, bundle in used.items()},
            regions=measured,
            regions_sha256=regions.sha256 if regions is not None else "",
            healthy=version,
            review=review,
            model=model,
            lung_tally=live.lung_tally if volume is given else None,
        )

    def _lungs(
        self, volume: Volume, mask: np.ndarray | None, progress: Progress | None, cancelled: Cancel | None
    ) -> tuple[np.ndarray, list[str]]:
        if mask is None:
            from .segmentation.lungs.segment import segment_lungs  # not before: it loads torch

            return self._computed(segment_lungs, self.lung_bundle, (volume,), progress, cancelled)
        from .segmentation.lungs.given import lungs_from_mask  # not before: it loads torch

        return lungs_from_mask(mask, volume)

    def _heat(self, *arrays: Any, progress: Progress | None, cancelled: Cancel | None) -> tuple[np.ndarray, list[str]]:
        from .segmentation.heat import lesion_heat  # not before: it loads torch

        return self._computed(lesion_heat, self.lesion_bundle, arrays, progress, cancelled)

    def _healthy(self, *arrays: Any, progress: Progress | None, cancelled: Cancel | None) -> np.ndarray:
        from .segmentation.healthy import healthy_version  # not before: it loads torch

        return self._computed(healthy_version, self.lesion_bundle, arrays, progress, cancelled)

    def _computed(
        self,
        compute: Callable[..., Computed],
        bundle: ModelBundle,
        arrays: tuple[Any, ...],
        progress: Progress | None,
        cancelled: Cancel | None,
    ) -> Computed:
        """What a bundle's network makes of ``arrays``: a volume, its lungs with box and heat where known.

        Where memory is too short for a batch, batches are halved, once.
        """
        from .models.memory import is_out_of_memory, release_cached  # not before: it loads torch

        ready = self._ready(bundle)

        def computed() -> Computed:
            how = (bundle, self.device, self.batch_size, progress, cancelled, ready.precision)
            return compute(*arrays, ready.network, *how)

        try:
            return computed()
        except (MemoryError, RuntimeError) as error:
            if self._halved or self.batch_size < 2 or not is_out_of_memory(error):
                raise
        # Here the error is gone, and the arrays that its traceback held with it.
        release_cached(self.device)
        asked, self.batch_size, self._halved = self.batch_size, self.batch_size // 2, True
        text = f"Memory was too short for {asked} slices at a time: {self.batch_size} were computed at a time."
        self._shortages.append(Oddity(text, "batch_halved", self.batch_size, asked))
        return computed()

    def _bundles(self) -> dict[str, ModelBundle]:
        """Both bundles, by task."""
        return {"lungs": self.lung_bundle, "lesions": self.lesion_bundle}

    def _ready(self, bundle: ModelBundle) -> ReadyNetwork:
        if bundle.task not in self._networks:
            from .models.runtime import ready_network  # not before: it loads torch

            self._networks[bundle.task] = ready_network(bundle, self.device, self.precision, self.engine)
        return self._networks[bundle.task]

    def time_networks(self, clocked: Callable[[Any], Any]) -> list[Any]:
        """Put ``clocked(network)`` in the place of each network, to measure it; returns these."""
        ready = {task: self._ready(bundle) for task, bundle in self._bundles().items()}
        self._networks = {task: replace(one, network=clocked(one.network)) for task, one in ready.items()}
        return [one.network for one in self._networks.values()]


def _bundle(bundle: ModelBundle | str | Path | None, task: str) -> ModelBundle:
    return bundle if isinstance(bundle, ModelBundle) else find_bundle(bundle, task)


def _check_parameters(threshold: float, min_volume_ml: float) -> None:
    if not 0 < threshold <= 1:
        raise ConfigError(
            "Segmentation", f"a threshold of {threshold:g}", "a number above 0, at most 1", code="threshold_range"
        )
    if not 0 <= min_volume_ml < float("inf"):
        raise ConfigError(
            "Segmentation", f"a minimum volume of {min_volume_ml:g} mL", "0 mL or more", code="min_volume_range"
        )


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    return_freed_memory()
    timings[stage] = round(time.perf_counter() - began, 3)


@contextmanager
def _memory_errors(stage: str, volume: Volume) -> Iterator[None]:
    """Put an out-of-memory error in words: which volume, and what to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        from .models.memory import is_out_of_memory  # not before: it loads torch

        if is_out_of_memory(error):
            size = "×".join(str(n) for n in reversed(volume.shape))
            advice = "Use a smaller batch size or the CPU, or crop the volume."
            raise ConfigError(
                stage, f"too little memory for {size} voxels", "memory for one batch", advice, code="out_of_memory"
            ) from error
        raise
