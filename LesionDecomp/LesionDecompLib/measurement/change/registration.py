"""Lungs of an earlier scan brought to those of a later one: an affine step, then B-splines, both by SimpleITK.

Deterministic: one thread, places that are compared chosen by a fixed seed. A step that improves nothing is left out, so
that a scan registers to itself without any motion at all.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt

from ...progress import Cancel, Progress, check_cancel
from .coarse import TISSUE, CoarseGrid, lesion_share, lung_image, lung_share
from .motion import Motion
from .scan import STAGE, Scan

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813  (its own habit)

SPACING_MM = 4.0  # of the grid that is registered
KNOTS_MM = 72.0  # between B-spline knots at first, half of it in the end
AROUND_MM = 8.0  # compared around the lungs
RIM_MM = 8.0  # at the lungs' edge, which is compared where there are lesions, too
AFFINE_STEPS, SPLINE_STEPS = 60, 25  # at most, on each of two grids
SHARE = 0.2  # of the points that is compared on the full grid
SAME = 1e-7  # mean squared difference of gray that is none
SEED = 1
STEP = "registration"


@dataclass(frozen=True, eq=False)
class Registered:
    """What registration gives.

    :param motion: from the later to the earlier scan.
    :param by: ``"CT"``, or ``"lung masks"`` where a CT was not at hand.
    """

    motion: Motion
    by: str


def register_lungs(
    earlier: Scan, later: Scan, progress: Progress | None = None, cancelled: Cancel | None = None
) -> Registered:
    """Find how the lungs moved.

    :param progress: called with (``"registration"``, steps done, steps in all).
    :param cancelled: asked at each step.
    :raises Cancelled: ``cancelled`` returned True.
    """
    fixed_grid, moving_grid = CoarseGrid.around(later, SPACING_MM), CoarseGrid.around(earlier, SPACING_MM)
    by = "CT" if earlier.hu is not None and later.hu is not None else "lung masks"
    if by != "CT":
        earlier, later = _without_ct(earlier), _without_ct(later)
    work = _Work(
        _image(lung_image(later, fixed_grid), fixed_grid),
        _image(lung_image(earlier, moving_grid), moving_grid),
        lung_share(later, fixed_grid),
        lung_share(earlier, moving_grid),
        lesion_share(later, fixed_grid),
        lesion_share(earlier, moving_grid),
        (fixed_grid, moving_grid),
        _Steps(progress, cancelled),
    )
    displacement, scale = work.displacement()
    return Registered(Motion(fixed_grid, displacement, scale), by)


def _without_ct(scan: Scan) -> Scan:
    return Scan(scan.lungs, scan.lesions, scan.ijk_to_ras, scan.statistics, None, scan.identity)


class _Steps:
    """Counts the optimizers' steps, reports them, and ends the work where it is asked to."""

    def __init__(self, progress: Progress | None, cancelled: Cancel | None) -> None:
        self._progress, self._cancelled = progress, cancelled
        self._done, self._total = 0, 2 * (AFFINE_STEPS + SPLINE_STEPS)
        self.error: BaseException | None = None
        self._hook: Any = None

    def take(self) -> None:
        """One step was made; an exception in here ends the optimizer, which forgets of which kind it was."""
        try:
            check_cancel(self._cancelled, STAGE)
            self._done = min(self._done + 1, self._total)
            if self._progress is not None:
                self._progress(STEP, self._done, self._total)
        except BaseException as error:
            self.error = error
            # SimpleITK prints what it catches, by this hook.
            self._hook, sys.excepthook = sys.excepthook, lambda *_: None
            raise

    def finish(self) -> None:
        """All steps are done, also those that were not needed."""
        if self._progress is not None:
            self._progress(STEP, self._total, self._total)

    def run(self, method: sitk.ImageRegistrationMethod, fixed: sitk.Image, moving: sitk.Image) -> None:
        """Run an optimizer, one step after the other."""
        import SimpleITK as sitk  # noqa: N813  (slow to import)

        method.AddCommand(sitk.sitkIterationEvent, self.take)
        try:
            method.Execute(fixed, moving)
        except RuntimeError:
            if self.error is not None:
                raise self.error from None
            raise
        finally:
            method.RemoveAllCommands()
            if self._hook is not None:
                sys.excepthook, self._hook = self._hook, None


@dataclass(frozen=True, eq=False)
class _Work:
    fixed: sitk.Image
    moving: sitk.Image
    fixed_lungs: np.ndarray
    moving_lungs: np.ndarray
    fixed_lesions: np.ndarray
    moving_lesions: np.ndarray
    grids: tuple[CoarseGrid, CoarseGrid]
    steps: _Steps

    def displacement(self) -> tuple[np.ndarray, float]:
        """``(3, z, y, x)`` float32 RAS mm on the later scan's grid, and how much larger tissue is in the later scan."""
        import SimpleITK as sitk  # noqa: N813  (slow to import)

        best: sitk.Transform = self._start()
        difference, scale = self._difference(best), 1.0
        for refine in (self._affine, self._splines):
            if difference <= SAME:
                break
            refined = refine(best)
            found = self._difference(refined)
            if found < difference:
                best, difference = refined, found
                if isinstance(refined, sitk.AffineTransform):
                    scale = 1.0 / float(abs(np.linalg.det(np.reshape(refined.GetMatrix(), (3, 3)))))
        self.steps.finish()
        field = sitk.TransformToDisplacementField(
            best,
            sitk.sitkVectorFloat64,
            self.fixed.GetSize(),
            self.fixed.GetOrigin(),
            self.fixed.GetSpacing(),
            self.fixed.GetDirection(),
        )
        return np.moveaxis(sitk.GetArrayFromImage(field), -1, 0).astype(np.float32), scale

    def _start(self) -> sitk.AffineTransform:
        """No motion, or that of the lungs' middles where the lungs then overlap better."""
        import SimpleITK as sitk  # noqa: N813  (slow to import)

        middles = [
            (grid.points()[share > 0.5]).mean(axis=0)
            for grid, share in zip(self.grids, (self.fixed_lungs, self.moving_lungs), strict=True)
        ]
        starts = []
        for shift in (np.zeros(3), middles[1] - middles[0]):
            start = sitk.AffineTransform(3)
            start.SetCenter([float(value) for value in middles[0]])
            start.SetTranslation([float(value) for value in shift])
            starts.append((self._overlap(shift), start))
        return starts[0][1] if starts[0][0] >= starts[1][0] else starts[1][1]

    def _overlap(self, shift: np.ndarray) -> float:
        fixed, moving = self.grids
        points = fixed.points()[self.fixed_lungs > 0.5] + shift
        index = np.rint((points - moving.origin) / moving.spacing).astype(np.intp)[:, ::-1]
        inside = ((index >= 0) & (index < np.array(moving.shape))).all(axis=1)
        return float((self.moving_lungs[tuple(index[inside].T)] > 0.5).sum())

    def _method(self) -> sitk.ImageRegistrationMethod:
        import SimpleITK as sitk  # noqa: N813  (slow to import)

        method = sitk.ImageRegistrationMethod()
        method.SetNumberOfThreads(1)
        method.SetMetricAsMeanSquares()
        method.SetInterpolator(sitk.sitkLinear)
        # What lies in a lesion of one scan has no counterpart in the other, and would draw its surroundings in.
        seen = self._compared & ~_depths(self.fixed_lungs, self.fixed_lesions, self.grids[0])
        method.SetMetricFixedMask(_image(seen.astype(np.uint8), self.grids[0]))
        method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
        method.SetMetricSamplingStrategy(method.REGULAR)
        return method

    @property
    def _compared(self) -> np.ndarray:
        """The lungs and what is around them."""
        return binary_dilation(self.fixed_lungs > 0.5, iterations=max(1, round(AROUND_MM / self.grids[0].spacing)))

    @property
    def _visible(self) -> sitk.Image:
        """Where the earlier scan is compared."""
        hidden = _depths(self.moving_lungs, self.moving_lesions, self.grids[1])
        return _image((~hidden).astype(np.uint8), self.grids[1])

    def _affine(self, start: sitk.Transform) -> sitk.Transform:
        import SimpleITK as sitk  # noqa: N813  (slow to import)

        moved = sitk.AffineTransform(start)
        method = self._method()
        method.SetInitialTransform(moved, True)
        method.SetShrinkFactorsPerLevel([2, 1])
        method.SetSmoothingSigmasPerLevel([6.0, 3.0])
        method.SetMetricSamplingPercentagePerLevel([1.0, SHARE], SEED)
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=4.0, minStep=0.02, numberOfIterations=AFFINE_STEPS, relaxationFactor=0.6
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetMetricMovingMask(self._visible)
        self.steps.run(method, self.fixed, self.moving)
        return moved

    def _splines(self, affine: sitk.Transform) -> sitk.Transform:
        import SimpleITK as sitk  # noqa: N813  (slow to import)

        size, spacing = self.fixed.GetSize(), self.grids[0].spacing
        found = [affine]
        # Few knots on half the grid first; what they leave is for more knots on all of it.
        for knots, shrink, sigma, share in ((KNOTS_MM, 2, 4.0, 1.0), (KNOTS_MM / 2, 1, 2.0, SHARE)):
            mesh = [max(1, round((n - 1) * spacing / knots)) for n in size]
            moved = sitk.BSplineTransformInitializer(self.fixed, mesh, 3)
            method = self._method()
            method.SetInitialTransform(moved, True)
            visible = sitk.Resample(
                self._visible, self.fixed, sitk.CompositeTransform(found), sitk.sitkNearestNeighbor, 1, sitk.sitkUInt8
            )
            method.SetMetricMovingMask(visible)
            method.SetShrinkFactorsPerLevel([shrink])
            method.SetSmoothingSigmasPerLevel([sigma])
            method.SetMetricSamplingPercentage(share, SEED)
            method.SetOptimizerAsLBFGSB(
                gradientConvergenceTolerance=1e-7,
                numberOfIterations=SPLINE_STEPS,
                maximumNumberOfFunctionEvaluations=SPLINE_STEPS + 5,
                costFunctionConvergenceFactor=1e9,
            )
            self.steps.run(method, self.fixed, self._moved(sitk.CompositeTransform(found)))
            found.append(moved)
        return sitk.CompositeTransform(found)

    def _difference(self, transform: sitk.Transform) -> float:
        """Mean squared difference of gray in and around the later lungs."""
        import SimpleITK as sitk  # noqa: N813  (slow to import)

        moved, fixed = (sitk.GetArrayFromImage(image) for image in (self._moved(transform), self.fixed))
        return float(np.mean((moved - fixed)[self._compared] ** 2, dtype=np.float64))

    def _moved(self, transform: sitk.Transform) -> sitk.Image:
        """The earlier lungs on the later scan's grid."""
        import SimpleITK as sitk  # noqa: N813  (slow to import)

        return sitk.Resample(self.moving, self.fixed, transform, sitk.sitkLinear, TISSUE, sitk.sitkFloat32)


def _depths(lungs: np.ndarray, lesions: np.ndarray, grid: CoarseGrid) -> np.ndarray:
    """Lesions away from the lungs' edge, which guides the registration whatever lies beside it."""
    deep = distance_transform_edt(lungs > 0.5, sampling=grid.spacing) > RIM_MM
    return (lesions > 0) & deep


def _image(array: np.ndarray, grid: CoarseGrid) -> sitk.Image:
    """An image whose places are RAS, mm, as nothing of it ever leaves this module."""
    import SimpleITK as sitk  # noqa: N813  (slow to import)

    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    image.SetOrigin([float(value) for value in grid.origin])
    image.SetSpacing([grid.spacing] * 3)
    return image
