"""Model bundles: a folder with ``bundle.json`` and one weights file, checked before anything of it is used.

Weights are read as data (:mod:`.weights`), nothing in them is executed, and only after their SHA-256 has been found
to be the one that ``bundle.json`` names. Format 2 keeps them as safetensors, format 1 as ``torch.save`` wrote them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import LesionDecompError, ModelError
from ..io.atomic import staged_folder
from ..libraries import library_error
from .records import HeatDefinition, SliceInput
from .weights import FORMAT_VERSION, WEIGHTS_NAMES, packed_weights, unpacked_weights

if TYPE_CHECKING:
    import torch

    from .networks import DecompositionNet

METADATA_NAME = "bundle.json"
TASKS = ("lungs", "lesions", "localizer")
NORMS = ("batch", "group", "none")  # as networks has them, without torch
STAGE = "Model bundle"
LOG = logging.getLogger(__name__)
MAX_METADATA_BYTES = 1 << 20
MAX_WEIGHTS_BYTES = 1 << 28
MAX_PARAMETERS = 64_000_000  # the paper's own network has 43 million
MAX_ARGUMENT, MAX_LEVELS = 4096, 10  # of an architecture
MOST_TRIED = 512 * 512  # pixels of a slice that is computed to see whether it can be
MAX_NEIGHBORS = 4  # slices above, and as many below
MAX_TEXT = {"name": 100, "version": 100, "description": 1000}

# Key of bundle.json -> type; what every bundle must state.
REQUIRED = {
    "format_version": int,
    "name": str,
    "version": str,
    "task": str,
    "description": str,
    "architecture": str,
    "architecture_arguments": dict,
    "input": dict,
    "default_threshold": float,
    "heat": dict,
    "training": dict,
    "metrics": dict,
    "git_revision": str,
    "weights_sha256": str,
}
# Key of bundle.json's "input" -> type: how a CT becomes what the network saw in training.
REQUIRED_INPUT = {"size": list, "spacing_mm": float, "hu_window": list, "mean": float, "std": float}


@dataclass(frozen=True, eq=False)
class ModelBundle:
    """A verified bundle.

    :param path: its folder.
    :param metadata: the contents of ``bundle.json``.
    """

    path: Path
    metadata: dict[str, Any]

    @classmethod
    def load(cls, path: str | Path, task: str | None = None) -> ModelBundle:
        """Read and verify a bundle: metadata, format version and the hash of the weights.

        :param task: one of ``TASKS`` when only that will do.
        :raises LesionDecompError: missing, foreign, tampered with, or for another task.
        """
        path = Path(path)
        metadata = _read_metadata(path)
        if task is not None and metadata["task"] != task:
            raise ModelError(STAGE, f"bundle '{path.name}' for the task '{metadata['task']}'", f"task '{task}'")
        bundle = cls(path, metadata)
        bundle.weights()
        return bundle

    @staticmethod
    def save(folder: str | Path, network: torch.nn.Module, metadata: dict[str, Any], half: bool = True) -> ModelBundle:
        """Write a network as a bundle, whole or not at all.

        :param metadata: the keys of ``bundle.json`` less ``format_version`` and ``weights_sha256``.
        :param half: store floating-point weights as float16.
        :raises LesionDecompError: metadata incomplete, or the folder cannot be written.
        """
        return ModelBundle.save_state(folder, network.state_dict(), metadata, half)

    @staticmethod
    def save_state(
        folder: str | Path, state: Mapping[str, torch.Tensor], metadata: dict[str, Any], half: bool
    ) -> ModelBundle:
        """Write a network's state as a bundle; see :meth:`save`."""
        weights = packed_weights(state, half)
        version = {"format_version": FORMAT_VERSION}
        metadata = {**version, **metadata, **version, "weights_sha256": hashlib.sha256(weights).hexdigest()}
        check_metadata(metadata, Path(folder))
        with staged_folder(
            folder,
            True,
            stage="Writing the model bundle",
            last=METADATA_NAME,
            retired=tuple(name for key, name in WEIGHTS_NAMES.items() if key != FORMAT_VERSION),
        ) as staging:
            (staging / METADATA_NAME).write_text(json.dumps(metadata, indent=2, ensure_ascii=False) + "\n", "utf-8")
            (staging / WEIGHTS_NAMES[FORMAT_VERSION]).write_bytes(weights)
        return ModelBundle(Path(folder), metadata)

    @property
    def name(self) -> str:
        """What users call the model by."""
        return self.metadata["name"]

    @property
    def version(self) -> str:
        """Version of the model."""
        return self.metadata["version"]

    @property
    def task(self) -> str:
        """``"lungs"``, ``"lesions"``, or ``"localizer"``: a method the lesion models are compared with."""
        return self.metadata["task"]

    @property
    def description(self) -> str:
        """One line for the model selector."""
        return self.metadata["description"]

    @property
    def sha256(self) -> str:
        """SHA-256 of the weights file, hexadecimal."""
        return self.metadata["weights_sha256"]

    @property
    def metadata_sha256(self) -> str:
        """SHA-256 of what ``bundle.json`` states, however it is laid out: window, heat, threshold and all."""
        text = json.dumps(self.metadata, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def format_version(self) -> int:
        """How the bundle is laid out: 1, or 2 with its weights as safetensors."""
        return self.metadata["format_version"]

    @property
    def default_threshold(self) -> float:
        """Threshold on heat (lesions) or probability (lungs), in [0, 1]."""
        return float(self.metadata["default_threshold"])

    @property
    def slice_input(self) -> SliceInput:
        """How slices of a CT enter the network."""
        return SliceInput.of(self.metadata)

    @property
    def heat_definition(self) -> HeatDefinition:
        """What of the network's answer is heat.

        :raises LesionDecompError: a definition that cannot be read.
        """
        return HeatDefinition.of(self.metadata)

    def network(self, device: torch.device | str = "cpu") -> torch.nn.Module:
        """The network with its weights, in evaluation mode and float32, on ``device``.

        :raises LesionDecompError: weights that do not fit the architecture the bundle names.
        """
        import torch

        from .networks import ARCHITECTURES  # not before: it loads torch
        from .precision import channels_last  # not before: it loads torch

        expected = f"weights for the architecture '{self.metadata['architecture']}'"
        if self.metadata["architecture"] not in ARCHITECTURES:
            raise ModelError(
                STAGE,
                f"the unknown architecture '{self.metadata['architecture']}' in bundle '{self.name}'",
                f"one of {', '.join(ARCHITECTURES)}",
                "Update LesionDecomp.",
            )
        weights = self.weights()
        try:
            # On the meta device no memory is taken before the arguments are known to be sane.
            with torch.device("meta"):
                network = ARCHITECTURES[self.metadata["architecture"]](**self.metadata["architecture_arguments"])
            if sum(parameter.numel() for parameter in network.parameters()) > MAX_PARAMETERS:
                raise ValueError("more parameters than any bundle may have")
            large = math.prod(self.metadata["input"]["size"]) > MOST_TRIED
            if large:
                self._try_input(network)
            state = unpacked_weights(weights, self.format_version)
            state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
            network.load_state_dict(state, assign=True)
            if not large:
                self._try_input(network.requires_grad_(False))
        except LesionDecompError:
            raise
        except Exception as error:  # torch raises half a dozen kinds here; all mean the same to the user
            if (cause := library_error(error)) is not None:
                raise cause from error
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise ModelError(STAGE, f"weights of '{self.name}' that do not load ({reason})", expected) from error
        if not all(torch.isfinite(value).all() for value in state.values() if value.is_floating_point()):
            raise ModelError(STAGE, f"weights of '{self.name}' that are not finite", expected)
        network.requires_grad_(False)
        return channels_last(network.eval(), device)

    def _try_input(self, network: torch.nn.Module) -> None:
        """Let a network try a slice of the size the bundle is for.

        Small ones are computed: on the meta device, which computes shapes alone, PyTorch first loads its compilers, and
        that takes longer than thirty slices.
        """
        import torch  # slow to import

        if self.task == "localizer":
            return
        height, width = self.metadata["input"]["size"]
        definition = self.heat_definition if self.task == "lesions" else HeatDefinition()
        shape = (height // definition.shrink, width // definition.shrink)
        device = next(network.parameters()).device
        x = torch.zeros(1, len(self.slice_input.offsets_mm), *shape, device=device)
        if self.task == "lungs":
            out, channels = network.eval()(x), 3
        else:
            decomposition = cast("DecompositionNet", network.eval())
            out = decomposition.normal(x) if definition.source in ("difference", "change") else decomposition.gate(x)
            channels = 1
        if out.shape != (1, channels, *x.shape[2:]):
            raise ValueError(f"output of shape {tuple(out.shape)} for slices of {height}×{width}")

    def weights(self) -> bytes:
        """The weights file, its SHA-256 compared.

        :raises LesionDecompError: missing, too large, unreadable, or another than the bundle was made with.
        """
        file = self.path / WEIGHTS_NAMES[self.format_version]
        expected = "the weights the bundle was made with"
        advice = "Install the bundle again."
        if not file.is_file() or file.is_symlink():
            raise ModelError(STAGE, f"no weights file in '{self.path.name}'", expected, advice)
        try:
            if file.stat().st_size > MAX_WEIGHTS_BYTES:
                found = f"{file.stat().st_size >> 20} MiB of weights in '{self.path.name}'"
                raise ModelError(STAGE, found, f"at most {MAX_WEIGHTS_BYTES >> 20} MiB", advice)
            weights = file.read_bytes()
        except OSError as error:
            raise _unreadable(file, error) from error
        digest = hashlib.sha256(weights).hexdigest()
        if digest != self.sha256:
            found = f"weights with SHA-256 {digest[:12]}… in '{self.path.name}'"
            raise ModelError(STAGE, found, f"{self.sha256[:12]}…, as bundle.json states", advice)
        return weights


def model_folders() -> list[Path]:
    """Where bundles are looked for: beside the module, inside the installed package, and the user's own folder."""
    library = Path(__file__).resolve().parents[1]
    return [library.parent / "Resources" / "Models", library / "Resources" / "Models", user_model_folder()]


def user_model_folder() -> Path:
    """The folder for a user's own bundles; need not exist."""
    return Path.home() / ".lesiondecomp" / "models"


def installed_bundles(task: str | None = None) -> list[ModelBundle]:
    """Bundles that verify, sorted by task and name; a broken one is left out (see :func:`bundle_paths`)."""
    bundles = []
    for path in bundle_paths():
        try:
            bundle = ModelBundle.load(path)
        except LesionDecompError as error:
            LOG.warning("Left out: %s", error)
            continue
        if task is None or bundle.task == task:
            bundles.append(bundle)
    return sorted(bundles, key=lambda bundle: (bundle.task, bundle.name))


def bundle_paths() -> list[Path]:
    """Every folder that holds a ``bundle.json``, verified or not."""
    return [file.parent for folder in model_folders() for file in sorted(folder.glob(f"*/{METADATA_NAME}"))]


def find_bundle(name_or_path: str | Path | None, task: str | None) -> ModelBundle:
    """The bundle with this name or at this path; ``None`` means the first shipped one for the task.

    :param task: that it must be for; None where it is named, and any will do.
    :raises LesionDecompError: none found, or the one found does not verify.

    >>> find_bundle("lungs-unet", "lungs").task
    'lungs'
    """
    paths = bundle_paths()
    if name_or_path is None:
        # Only a bundle that declares it is the default: a user's own must be asked for.
        broken = None
        for path in paths:
            try:
                metadata = _read_metadata(path)
            except LesionDecompError as error:  # one broken bundle does not hide the others
                broken = broken or error
                continue
            if metadata["task"] == task and metadata.get("default"):
                return ModelBundle.load(path, task)
        if broken is not None:
            raise broken
        raise ModelError(STAGE, f"no bundle for the task '{task}'", "the ones that ship", "Install again.")
    if Path(name_or_path).is_dir():
        return ModelBundle.load(name_or_path, task)
    for path in paths:
        if str(name_or_path) in (path.name, _name_in(path)):
            return ModelBundle.load(path, task)
    known = ", ".join(sorted(path.name for path in paths)) or "none"
    raise ModelError(STAGE, f"no bundle '{name_or_path}'", f"a bundle folder or one of: {known}")


def _name_in(path: Path) -> str | None:
    try:
        return _read_metadata(path)["name"]
    except LesionDecompError:
        return None


def _unreadable(file: Path, error: OSError) -> LesionDecompError:
    found = f"'{file.name}' in '{file.parent.name}', which cannot be opened ({error.strerror or error})"
    return ModelError(STAGE, found, "a readable file")


def _read_metadata(path: Path) -> dict[str, Any]:
    file = path / METADATA_NAME
    advice = "Choose a folder that a training made."
    if not file.is_file() or file.is_symlink():
        raise ModelError(STAGE, f"no {METADATA_NAME} in '{path.name}'", "a model bundle folder", advice)
    try:
        if file.stat().st_size > MAX_METADATA_BYTES:
            found = f"a {METADATA_NAME} of {file.stat().st_size} bytes"
            raise ModelError(STAGE, found, "at most 1 MiB", advice)
        metadata = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise _unreadable(file, error) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(STAGE, f"a {METADATA_NAME} that is not JSON ({error})", "a JSON object", advice) from error
    check_metadata(metadata, path)
    return metadata


def check_metadata(metadata: Any, path: Path) -> None:
    """Refuse metadata that no bundle can have.

    :param metadata: what ``bundle.json`` holds, whatever it is.
    :param path: of the bundle, to name it.
    :raises ModelError: what is wrong first.
    """
    if not isinstance(metadata, dict):
        raise ModelError(STAGE, f"a {METADATA_NAME} that does not hold an object in '{path.name}'", "a JSON object")
    version = metadata.get("format_version")
    if version not in list(WEIGHTS_NAMES):  # which compares what has no hash too
        found = f"format version {version!r} in '{path.name}'"
        expected = f"at most {FORMAT_VERSION}"
        raise ModelError(STAGE, found, expected, "Update LesionDecomp or train the model again.")
    _check_types(metadata, REQUIRED, path.name)
    _check_types(metadata["input"], REQUIRED_INPUT, f"{path.name}: input")
    if metadata["task"] not in TASKS:
        raise ModelError(STAGE, f"task {metadata['task']!r} in '{path.name}'", f"one of {', '.join(TASKS)}")
    _check_ranges(metadata, path.name)


def _check_types(values: dict[str, Any], types: dict[str, type], where: str) -> None:
    for key, kind in types.items():
        value = values.get(key)
        fits = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
        if not fits:
            raise ModelError(STAGE, f"'{key}' missing or not of type {kind.__name__} in '{where}'", "a full bundle")


def _check_ranges(metadata: dict[str, Any], where: str) -> None:
    image = metadata["input"]
    checks = {
        "input.size": len(image["size"]) == 2 and all(type(n) is int and 32 <= n <= 2048 for n in image["size"]),
        "input.spacing_mm": 0.1 <= image["spacing_mm"] <= 20,
        "input.hu_window": len(image["hu_window"]) == 2
        and all(_is_number(hu, 5000) for hu in image["hu_window"])
        and image["hu_window"][1] - image["hu_window"][0] >= 1,
        "input.lung_mode_hu": _is_number(image.get("lung_mode_hu", 0), 5000),
        "input.rim_pixels": _is_number(image.get("rim_pixels", 0), 32) and image.get("rim_pixels", 0) >= 0,
        "input.rim_slab_mm": _is_number(image.get("rim_slab_mm", 0), 100) and image.get("rim_slab_mm", 0) >= 0,
        "input.neighbors_mm": _are_neighbors(image.get("neighbors_mm", []), metadata["task"]),
        "input.mean": _is_number(image["mean"], 1e4),
        "input.std": _is_number(image["std"], 1e4) and image["std"] > 1e-6,
        "default_threshold": 0 < metadata["default_threshold"] < 1,
        "architecture_arguments": all(
            _is_argument(value) and not (key == "levels" and not _is_number(value, MAX_LEVELS))
            for key, value in metadata["architecture_arguments"].items()
        ),
        **{key: len(metadata[key]) <= most and metadata[key].isprintable() for key, most in MAX_TEXT.items()},
    }
    for key, holds in checks.items():
        if not holds:
            raise ModelError(STAGE, f"a value of '{key}' out of range in '{where}'", "a bundle as trained")


def _is_number(value: Any, most: float) -> bool:
    return type(value) in (int, float) and abs(value) <= most  # no NaN is


def _are_neighbors(values: Any, task: str) -> bool:
    """Whether these are distances of neighboring slices, nearest first; lung networks alone have them."""
    if not isinstance(values, list) or len(values) > (MAX_NEIGHBORS if task == "lungs" else 0):
        return False
    known = all(_is_number(value, 100) and value > 0 for value in values)
    return known and all(near < far for near, far in pairwise(values))


def _is_argument(value: Any) -> bool:
    return type(value) is bool or (type(value) is int and 0 <= value <= MAX_ARGUMENT) or value in NORMS
