"""A paragraph for the methods section of a paper, made from the manifest of a run: what was done, by what, from where.

It names software, models, settings, definitions and sources, and nothing about the patient or the CT.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..measurement.definitions import measurement
from ..measurement.review import ACCEPT, ADD, PAINT, REJECT
from .manifest import shown_measurements

METHOD = (
    "Yang Y., Chen J., Wang R., Ma T., Wang L., Chen J., Zheng W.-S., Zhang T. Towards Unbiased COVID-19 Lesion "
    "Localisation and Segmentation via Weakly Supervised Learning. IEEE International Symposium on Biomedical Imaging "
    "(ISBI), 2021. arXiv:2103.00780"
)
HOMEPAGE = "https://github.com/lesiondecomp/SlicerLesionDecomp"
# In full, by the DOI that a measurement's source has.
REFERENCES = {
    "10.1186/s12879-021-06556-z": "Lu et al. BMC Infectious Diseases 2021; 21:836. doi:10.1186/s12879-021-06556-z",
    "10.1148/radiol.2020200370": "Pan et al. Radiology 2020; 295:715-721. doi:10.1148/radiol.2020200370",
    "10.1148/radiol.2303030853": "Ooi et al. Radiology 2004; 230:836-844. doi:10.1148/radiol.2303030853",
}
REVIEWED = {
    ACCEPT: "accepted lesions",
    REJECT: "rejected lesions",
    ADD: "added lesions from the heatmap",
    PAINT: "edited lesions by hand",
}
DOI = re.compile(r"doi (\S+?)[.,]?(?=\s|$)")


class _Citations:
    """Numbers sources in the order in which they are cited."""

    def __init__(self) -> None:
        self.listed: list[str] = []

    def number(self, reference: str) -> str:
        if reference not in self.listed:
            self.listed.append(reference)
        return f"[{self.listed.index(reference) + 1}]"

    def of_measurement(self, key: str) -> str:
        found = DOI.search(measurement(key).source)
        return self.number(REFERENCES[found[1]]) if found else ""


def methods_text(manifest: Mapping[str, Any]) -> str:
    """The paragraph and its references.

    :param manifest: of the run (:func:`LesionDecompLib.report.manifest.build_manifest`).
    :return: plain English, UTF-8, ending in a line break.
    """
    cited = _Citations()
    sentences = [
        *_software(manifest, cited),
        *_lungs(manifest),
        *_lesions(manifest),
        *_measured(cited),
        *_regions(manifest),
        *_severity(manifest, cited),
        *_review(manifest),
        "The software is for research use only and is not a medical device.",
    ]
    references = [f"[{number}] {text}." for number, text in enumerate(cited.listed, start=1)]
    return " ".join(sentences) + "\n\nReferences\n" + "\n".join(references) + "\n"


def _software(manifest: Mapping[str, Any], cited: _Citations) -> Iterable[str]:
    software = manifest["software"]
    yield (
        f"Lung lesions in chest CT were segmented and measured with {software['name']} {software['version']} "
        f"({HOMEPAGE}), which implements weakly supervised lesion decomposition {cited.number(METHOD)}."
    )
    run = manifest["run"]
    versions = run["environment"]
    libraries = [
        f"{name} {versions[key]}"
        for key, name in (("python", "Python"), ("torch", "PyTorch"), ("onnxruntime", "ONNX Runtime"))
        if key in versions
    ]
    precision = sorted(set(run["precision"].values()))
    yield f"It ran with {_listed(libraries)} on {_device(run['device'])} ({', '.join(precision)})."


def _listed(words: list[str]) -> str:
    """``"a, b and c"``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _device(words: str) -> str:
    """``"CPU"`` of ``"CPU, 2 threads (automatic: ...)"``."""
    return words.split(",")[0].split(" (")[0]


def _lungs(manifest: Mapping[str, Any]) -> Iterable[str]:
    model = manifest["models"]["lungs"]
    if model is not None:
        yield f"The lungs were segmented by the model {_model(model)}."
        return
    chosen = manifest["parameters"].get("lung_labels")
    labels = f" (labels {chosen} of it)" if chosen else ""
    yield f"The lungs were those of a mask supplied by the user{labels}."


def _model(model: Mapping[str, str]) -> str:
    return f"{model['name']} {model['version']} (SHA-256 of its weights {model['sha256']})"


def _lesions(manifest: Mapping[str, Any]) -> Iterable[str]:
    parameters = manifest["parameters"]
    yield (
        f"The model {_model(manifest['models']['lesions'])}, trained from image-level labels, gave each voxel of the "
        f"lungs a heat from 0 to 1; voxels with a heat of at least {parameters['threshold']:g} were called lesion, and "
        f"lesions (26-connected) smaller than {parameters['min_volume_ml']:g} mL were left out."
    )


def _measured(cited: _Citations) -> Iterable[str]:
    for key in ("lung_volume_ml", "lesion_volume_ml", "involvement_percent"):
        one = measurement(key)
        yield f"{one.title}: {_lower(one.definition)}"
    glass, dense = measurement("ground_glass_ml"), measurement("consolidation_ml")
    yield f"{glass.title}: {_lower(glass.definition.split('. ')[0])}; {dense.title.lower()}: {_lower(dense.definition)}"
    yield f"That cut follows {cited.of_measurement('consolidation_ml')}."
    yield "Lesions were counted as connected voxels (26 neighbors)."


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _regions(manifest: Mapping[str, Any]) -> Iterable[str]:
    rows = shown_measurements(manifest).get("regions") or ()
    rules = {row["set"]: row["definition"].partition(". ")[2] for row in rows if row["set"] in ("thirds", "halves")}
    if "thirds" in rules:
        yield f"Zones: {_lower(rules['thirds'])}"
    if "halves" in rules:
        yield f"Ventral and dorsal halves: {_lower(rules['halves'])}"
    given = [row for row in rows if row["set"] == "given"]
    if given:  # counted, not named: what users call their regions is theirs
        lobes = sum(bool(row.get("lobe")) for row in given)
        parts = [f"{n} {what}" for n, what in ((lobes, "lobes"), (len(given) - 1 - lobes, "other regions")) if n]
        if parts:  # none of them where no region meets the lungs
            yield f"Regions supplied by the user ({', '.join(parts)}) were measured where they meet the lungs."


def _severity(manifest: Mapping[str, Any], cited: _Citations) -> Iterable[str]:
    severity = shown_measurements(manifest).get("severity") or {}
    for kind, part, total in (("lobes", "lobe_score", "lobe_total"), ("zones", "zone_score", "zone_total")):
        score = severity.get(kind)
        if score is None or score["total"] is None:
            continue
        scale, whole = measurement(part), measurement(total)
        yield (
            f"{whole.title} ({whole.unit}) was computed on the scale of {cited.of_measurement(part)}, "
            f"{_lower(scale.definition.partition(';')[0])}, from measured involvement."
        )


def _review(manifest: Mapping[str, Any]) -> Iterable[str]:
    decisions = {one["decision"] for one in (manifest.get("review") or {}).get("lesions", ())}
    done = [words for key, words in REVIEWED.items() if key in decisions]
    if done:
        *most, last = done
        words = f"{', '.join(most)} and {last}" if most else last
        yield f"A reader {words}; the measurements are those of the lesions after this review."
