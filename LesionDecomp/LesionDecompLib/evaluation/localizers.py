"""Every method of the comparison behind one interface: slices in, heat out.

A trained bundle offers one or several of :data:`METHODS`; the floors need none. All methods but the floors are averaged
with the mirrored slice and smoothed by two pixels inside the lungs, as a lesion bundle's own heat is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

from ..errors import InputError
from ..models.bundle import ModelBundle
from ..models.classifier import CAM_LAYER, GRAD_CAM_LAYER, LESION, NORMAL
from ..segmentation.smoothing import blur_inside, shrink_inside
from ..training.data.slices import lung_crops
from ..training.heat_scale import slice_heat
from ..training.val_precision import blurred_grey

STAGE = "Evaluation"
BATCH = 16
SMOOTHING_PX = 2.0
# Grad-CAM has no scale of its own: six decades below 1 are distinguished.
GRAD_CAM_DECADES = 6.0

Evidence = Callable[[torch.Tensor], torch.Tensor]
HeatOf = Callable[[np.ndarray], np.ndarray]
Way = Callable[[torch.nn.Module, int, torch.device], HeatOf]  # network, how far its slices are shrunk, device


@dataclass(frozen=True, eq=False)
class Localizer:
    """One row of a comparison.

    :param name: of the row.
    :param method: a key of :data:`METHODS` or :data:`FLOORS`.
    :param heat: ``(n, h, w)`` uint8 lung-masked slices to float32 heat in [0, 1], 0 outside the lungs.
    :param threshold: the bundle's own; None for a method that has none until it is chosen on ``val``.
    :param bundle: what was trained; None for floors.
    :param scores: of a classifier, ``(n, h, w)`` slices to ``(n,)`` logits, high for lesion; None where there is none.
    """

    name: str
    method: str
    heat: HeatOf
    threshold: float | None = None
    bundle: ModelBundle | None = None
    scores: HeatOf | None = None


@dataclass(frozen=True)
class Method:
    """A way to get heat out of a bundle.

    :param fits: whether a bundle offers it.
    :param heat: the bundle's heat by it.
    :param scores: its classifier's scores of whole slices, where it has one.
    """

    fits: Callable[[ModelBundle], bool]
    heat: Callable[[ModelBundle, torch.device], HeatOf]
    scores: Callable[[ModelBundle, torch.device], HeatOf] | None = None


def _own_heat(bundle: ModelBundle, device: torch.device) -> HeatOf:
    network, definition = bundle.network(device), bundle.heat_definition
    return lambda images: slice_heat(network, definition, images, device)


def _of_source(source: str) -> Callable[[ModelBundle, torch.device], HeatOf]:
    def heat_of(bundle: ModelBundle, device: torch.device) -> HeatOf:
        network = bundle.network(device)
        definition = replace(bundle.heat_definition, source=source, raw=(0.0, 1.0), scaled=(0.0, 1.0))
        return lambda images: slice_heat(network, definition, images, device)

    return heat_of


def _cam(network: torch.nn.Module, shrink: int, device: torch.device) -> HeatOf:
    from monai.visualize import CAM  # an extra, slow to import

    cam = CAM(network, target_layers=CAM_LAYER, fc_layers="resnet.fc", postprocessing=_as_it_is)

    def of_class(x: torch.Tensor, number: int) -> torch.Tensor:
        return cam(x, class_idx=torch.full((len(x),), number))

    def evidence(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.sigmoid(of_class(x, LESION) - of_class(x, NORMAL))

    return _smoothed(evidence, shrink, device)


def _grad_cam(network: torch.nn.Module, shrink: int, device: torch.device) -> HeatOf:
    from monai.visualize import GradCAM  # an extra, slow to import

    # Backward through channels-last weights with hooks crashes torch 2.13 on CPU.
    network.requires_grad_(True)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    grad_cam = GradCAM(network, target_layers=GRAD_CAM_LAYER, postprocessing=_as_it_is)

    def evidence(x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            return grad_cam(x, class_idx=LESION).detach().relu()

    def decades(value: torch.Tensor) -> torch.Tensor:
        return (1 + value.clamp_min(1e-30).log10() / GRAD_CAM_DECADES).clamp(0.0, 1.0)

    return _smoothed(evidence, shrink, device, decades)


def _slice_scores(bundle: ModelBundle, device: torch.device) -> HeatOf:
    network = bundle.network(device)
    crop = tuple(bundle.metadata["training"]["configuration"]["crop"])
    shrink = int(bundle.metadata["heat"].get("shrink", 1))

    @torch.inference_mode()
    def scores(images: np.ndarray) -> np.ndarray:
        crops = lung_crops(images, crop or images.shape[1:])
        logits = []
        for start in range(0, len(crops), BATCH):
            x = torch.from_numpy(crops[start : start + BATCH]).to(device, torch.float32).unsqueeze(1) / 127.5 - 1.0
            out = network(shrink_inside(x, shrink) if shrink > 1 else x)
            logits.append((out[:, LESION] - out[:, NORMAL]).float().cpu().numpy())
        return np.concatenate(logits)

    return scores


def _added_map(network: torch.nn.Module, shrink: int, device: torch.device) -> HeatOf:
    @torch.inference_mode()
    def evidence(x: torch.Tensor) -> torch.Tensor:
        return (-network(x).float() / 2).clamp(0.0, 1.0)  # what M(x) takes away

    return _smoothed(evidence, shrink, device)


def _taken_away(network: torch.nn.Module, shrink: int, device: torch.device) -> HeatOf:
    @torch.inference_mode()
    def evidence(x: torch.Tensor) -> torch.Tensor:
        return ((x - torch.tanh(network(x).float())) / 2).clamp(0.0, 1.0)

    return _smoothed(evidence, shrink, device)


def _as_it_is(value: torch.Tensor | np.ndarray) -> torch.Tensor | np.ndarray:
    """No normalization of each slice by itself: heat must be comparable between slices."""
    return value


# What each baseline offers.
BASELINE_WAYS: dict[str, dict[str, Way]] = {
    "classifier": {"cam": _cam, "grad-cam": _grad_cam},
    "va-gan": {"va-gan": _added_map},
    "biomarker": {"biomarker": _taken_away},
}


def _of_bundle(way: Way) -> Callable[[ModelBundle, torch.device], HeatOf]:
    return lambda bundle, device: way(bundle.network(device), int(bundle.metadata["heat"].get("shrink", 1)), device)


def _is_baseline(name: str) -> Callable[[ModelBundle], bool]:
    return lambda bundle: bundle.task == "localizer" and bundle.metadata.get("method") == name


def _own_source(bundle: ModelBundle) -> str | None:
    return bundle.heat_definition.source if bundle.task == "lesions" else None


def _has_normal_decoder(bundle: ModelBundle) -> bool:
    return bool(bundle.metadata["architecture_arguments"].get("normal_decoder", True))


def _has_lesion_decoder(bundle: ModelBundle) -> bool:
    return bool(bundle.metadata["architecture_arguments"].get("lesion_decoder", True))


def _is_plain(bundle: ModelBundle) -> bool:
    """Whether it is a decomposition whose G2 ends in a tanh, as in the paper."""
    return bundle.task == "lesions" and not bundle.metadata["architecture_arguments"].get("gated", False)


METHODS: dict[str, Method] = {
    "heat": Method(lambda bundle: bundle.task == "lesions", _own_heat),
    # Each decoder alone, where the bundle's own heat is not that already.
    "gate": Method(lambda bundle: _own_source(bundle) == "both", _of_source("gate")),
    "difference": Method(
        lambda bundle: _own_source(bundle) not in (None, "difference") and _has_normal_decoder(bundle),
        _of_source("difference"),
    ),
    # The paper's decoders, whose own heat is the best of three ways on val.
    "lesion": Method(
        lambda bundle: _is_plain(bundle) and _own_source(bundle) != "lesion" and _has_lesion_decoder(bundle),
        _of_source("lesion"),
    ),
    "change": Method(
        lambda bundle: _is_plain(bundle) and _own_source(bundle) != "change" and _has_normal_decoder(bundle),
        _of_source("change"),
    ),
    "cam": Method(_is_baseline("classifier"), _of_bundle(_cam), _slice_scores),
    "grad-cam": Method(_is_baseline("classifier"), _of_bundle(_grad_cam), _slice_scores),
    "va-gan": Method(_is_baseline("va-gan"), _of_bundle(_added_map)),
    "biomarker": Method(_is_baseline("biomarker"), _of_bundle(_taken_away)),
}


# Of METHODS those that are parts of a decomposition, whose own heat is a row beside.
PARTS = ("gate", "difference", "lesion", "change")


def _gray(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / 255.0


# What knows nothing: a method that does not clear these has learned nothing a blur does not know.
FLOORS: dict[str, HeatOf] = {"grey": _gray, "blurred_grey": blurred_grey}


def localizers_of(
    bundles: Sequence[ModelBundle], methods: Sequence[str] | None = None, device: torch.device | str = "cpu"
) -> list[Localizer]:
    """All that ``bundles`` offer, and the floors.

    A row is named after its bundle, with ``/method`` behind where the method is not the bundle's own heat.

    :param methods: keys of :data:`METHODS` and :data:`FLOORS` to keep; None keeps all.
    :raises LesionDecompError: an unknown method, one that no bundle offers, or two rows of one name.
    """
    known = [*METHODS, *FLOORS]
    for name in methods or ():
        if name not in known:
            raise InputError(STAGE, f"the unknown method '{name}'", f"one of {', '.join(known)}")
    rows = []
    for bundle in bundles:
        for name, method in METHODS.items():
            if method.fits(bundle) and (methods is None or name in methods):
                own = name in ("heat", bundle.metadata.get("method"))
                threshold = bundle.default_threshold if name == "heat" else None
                row = bundle.name if own else f"{bundle.name}/{name}"
                on = torch.device(device)
                scores = None if method.scores is None else method.scores(bundle, on)
                rows.append(Localizer(row, name, method.heat(bundle, on), threshold, bundle, scores))
    found = {row.method for row in rows}
    for name in methods or ():
        if name in METHODS and name not in found:
            raise InputError(
                STAGE,
                f"no bundle that offers '{name}'",
                "one among the given models",
                "Train it first.",
                remedy="models",
            )
    rows += [Localizer(name, name, heat) for name, heat in FLOORS.items() if methods is None or name in methods]
    names = [row.name for row in rows]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(
            STAGE, f"two bundles named '{twice}'", "a name each", 'Change "name" in the bundle.json of one.'
        )
    return rows


def _smoothed(evidence: Evidence, shrink: int, device: torch.device, finish: Evidence | None = None) -> HeatOf:
    def mirrored(x: torch.Tensor) -> torch.Tensor:
        return (evidence(x) + evidence(x.flip(3)).flip(3)) / 2

    def heat(images: np.ndarray) -> np.ndarray:
        result = np.empty(images.shape, dtype=np.float32)
        for start in range(0, len(images), BATCH):
            x = torch.from_numpy(images[start : start + BATCH]).to(device, torch.float32).unsqueeze(1) / 127.5 - 1.0
            inside = (x > -1).float()
            value = mirrored(shrink_inside(x, shrink) if shrink > 1 else x)
            if value.shape != x.shape:
                value = functional.interpolate(value, size=x.shape[2:], mode="bilinear", align_corners=False)
            value = blur_inside(value, inside, SMOOTHING_PX)
            value = (value if finish is None else finish(value)) * inside
            result[start : start + BATCH] = value[:, 0].clamp(0.0, 1.0).cpu().numpy()
        return result

    return heat
