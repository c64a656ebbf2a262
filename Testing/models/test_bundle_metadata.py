"""What ``bundle.json`` must state, within which bounds, and what a bundle reports of itself."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from LesionDecompLib.errors import LesionDecompError, ModelError
from LesionDecompLib.models import bundle as bundles
from LesionDecompLib.models.bundle import ModelBundle, bundle_paths, find_bundle, installed_bundles, model_folders
from LesionDecompLib.models.networks import DecompositionNet, UNet
from safetensors.torch import load_file
from tiny_bundle import ARGUMENTS, INPUT, METADATA, rewrite

# Key -> a value of another type.
WRONG = {
    "format_version": "1",
    "name": 1,
    "version": 1.0,
    "task": None,
    "description": [],
    "architecture": 3,
    "architecture_arguments": [],
    "input": [],
    "default_threshold": "0.5",
    "heat": [],
    "training": "",
    "metrics": 0.9,
    "git_revision": 7,
    "weights_sha256": 0,
}
WRONG_INPUT = {"size": "64", "spacing_mm": "2", "hu_window": 5, "mean": None, "std": True}


@pytest.fixture
def bundle(tmp_path):
    torch.manual_seed(0)
    return ModelBundle.save(tmp_path / "tiny", UNet(**ARGUMENTS).eval(), METADATA, half=False)


def written(bundle, change):
    """Change what ``bundle.json`` states, in place."""
    metadata = copy.deepcopy(bundle.metadata)
    change(metadata)
    (bundle.path / "bundle.json").write_text(json.dumps(metadata), "utf-8")


@pytest.mark.parametrize("key", WRONG)
def test_a_bundle_that_leaves_something_out_or_states_it_in_another_type_is_refused(bundle, key):
    reported = "format version" if key == "format_version" else f"'{key}' missing or not of type"
    written(bundle, lambda metadata: metadata.pop(key))
    with pytest.raises(LesionDecompError, match=reported):
        ModelBundle.load(bundle.path)
    written(bundle, lambda metadata: metadata.update({key: WRONG[key]}))
    with pytest.raises(LesionDecompError, match=reported):
        ModelBundle.load(bundle.path)


@pytest.mark.parametrize("version", [True, 1.0])
def test_a_format_version_is_a_whole_number(bundle, version):
    rewrite(bundle, format_version=version)  # equal to 1 in Python
    with pytest.raises(LesionDecompError, match=r"'format_version' missing or not of type int"):
        ModelBundle.load(bundle.path)


@pytest.mark.parametrize("key", WRONG_INPUT)
def test_an_input_that_leaves_something_out_or_states_it_in_another_type_is_refused(bundle, key):
    written(bundle, lambda metadata: metadata["input"].pop(key))
    with pytest.raises(LesionDecompError, match=rf"'{key}' missing or not of type .* in 'tiny: input'"):
        ModelBundle.load(bundle.path)
    written(bundle, lambda metadata: metadata["input"].update({key: WRONG_INPUT[key]}))
    with pytest.raises(LesionDecompError, match=rf"'{key}' missing or not of type .* in 'tiny: input'"):
        ModelBundle.load(bundle.path)


@pytest.mark.parametrize(
    ("key", "accepted", "refused"),
    [
        (
            "size",
            [[32, 32], [2048, 2048], [64, 32]],
            [[31, 64], [64, 2049], [64], [64, 64, 64], [64.0, 64], [True, 64]],
        ),
        ("spacing_mm", [0.1, 20, 20.0], [0.09, 20.1, float("nan")]),
        ("hu_window", [[-5000, 5000], [0, 1]], [[0, 0.9], [0, 5001], [-5001, 0], [1, 0], [0], [0, 1, 2], ["0", 1]]),
        ("lung_mode_hu", [-5000, 5000.0, 0], [5001, -5001, "x", None, True, float("nan")]),
        ("rim_pixels", [0, 32], [-1, 33, "1", None]),
        ("rim_slab_mm", [0, 100.0], [-0.1, 101, "1", None]),
        ("neighbors_mm", [[]], ["6", None, 6.0]),  # those of lung networks: test_lung_context
        ("mean", [-1e4, 1e4, 0], [10001.0, -10001, float("inf")]),
        ("std", [2e-6, 1e4], [1e-6, 0, -1.0, 10001, float("nan")]),
    ],
)
def test_bounds_of_what_the_network_sees(bundle, key, accepted, refused):
    for value in accepted:
        rewrite(bundle, input={**INPUT, key: value})
        assert ModelBundle.load(bundle.path).metadata["input"][key] == value
    for value in refused:
        rewrite(bundle, input={**INPUT, key: value})
        with pytest.raises(LesionDecompError, match=rf"'input.{key}' out of range in 'tiny'"):
            ModelBundle.load(bundle.path)


@pytest.mark.parametrize(
    ("key", "accepted", "refused"),
    [
        ("default_threshold", [0.001, 0.999], [0, 1, 0.0, 1.0, -0.1, float("nan")]),
        ("name", ["n" * 100, "Größe 1", ""], ["n" * 101, "a\nb", "\x1b"]),
        ("version", ["v" * 100], ["v" * 101, "1\t"]),
        ("description", ["d" * 1000], ["d" * 1001, "a\nb"]),
        (
            "architecture_arguments",
            [
                {"channels": 0},
                {"channels": 4096},
                {"levels": 10},
                {"gated": True},
                {"norm": "group"},
                {"norm": "none"},
                {},
            ],
            [
                {"channels": -1},
                {"channels": 4097},
                {"levels": 11},
                {"levels": "batch"},
                {"norm": "layer"},
                {"channels": 4.0},
                {"channels": None},
                {"channels": 4, "levels": [3]},
            ],
        ),
    ],
)
def test_bounds_of_what_a_bundle_states(bundle, key, accepted, refused):
    for value in accepted:
        rewrite(bundle, **{key: value})
        assert ModelBundle.load(bundle.path).metadata[key] == value
    for value in refused:
        rewrite(bundle, **{key: value})
        with pytest.raises(LesionDecompError, match=rf"'{key}' out of range in 'tiny'"):
            ModelBundle.load(bundle.path)


@pytest.mark.parametrize("text", ["", "[]", "null", '"text"', "{" * 100_000, "[" * 100_000, b"\xff\xfe"])
def test_metadata_that_is_no_object_is_refused(bundle, text):
    (bundle.path / "bundle.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelError) as reported:
        ModelBundle.load(bundle.path)
    assert "bundle.json" in reported.value.found and "JSON" in reported.value.found + reported.value.expected


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*WRONG, "x"]), st.none() | st.integers() | st.text(max_size=3), max_size=14))
def test_whatever_object_a_bundle_holds_is_refused_in_a_sentence(metadata):
    with pytest.raises(ModelError):
        bundles.check_metadata(metadata, Path("x"))


def test_files_of_absurd_size_are_refused_before_they_are_read(bundle):
    file = bundle.path / "bundle.json"
    text = file.read_bytes()
    file.write_bytes(text + b" " * (2**20 - len(text)))
    assert ModelBundle.load(bundle.path).name == "tiny"
    file.write_bytes(text + b" " * (2**20 - len(text) + 1))
    with pytest.raises(LesionDecompError, match=r"1048577 bytes"):
        ModelBundle.load(bundle.path)
    file.write_bytes(text)
    os.truncate(bundle.path / "weights.safetensors", 2**28 + 1)  # takes no room on the disk
    with pytest.raises(LesionDecompError, match=r"256 MiB of weights"):
        ModelBundle.load(bundle.path)


@pytest.mark.parametrize("name", ["bundle.json", "weights.safetensors"])
def test_a_file_that_cannot_be_opened_is_refused(bundle, name):
    resource = pytest.importorskip("resource", reason="limits of a process are POSIX")
    bundle.network()  # imports what it needs
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))  # root too can have no more files open
    try:
        with pytest.raises(LesionDecompError, match=rf"'{name}' in 'tiny', which cannot be opened") as refused:
            ModelBundle.load(bundle.path) if name == "bundle.json" else bundle.network()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert "Too many open files" in str(refused.value)


def test_a_folder_without_a_bundle_is_refused_with_advice(bundle, tmp_path):
    with pytest.raises(LesionDecompError, match=r"no bundle\.json in 'empty'.*that a training made"):
        ModelBundle.load(tmp_path / "empty")
    (bundle.path / "weights.safetensors").unlink()
    with pytest.raises(LesionDecompError, match=r"no weights file in 'tiny'.*Install the bundle again"):
        ModelBundle.load(bundle.path)


def test_a_bundle_reports_what_it_is(bundle, tmp_path):
    weights = (bundle.path / "weights.safetensors").read_bytes()
    assert bundle.path == tmp_path / "tiny"
    assert (bundle.name, bundle.version, bundle.task, bundle.description) == ("tiny", "1.0", "lungs", "untrained")
    assert bundle.sha256 == hashlib.sha256(weights).hexdigest()
    assert bundle.metadata["format_version"] == 2
    assert bundle.default_threshold == 0.5 and type(bundle.default_threshold) is float
    assert ModelBundle.load(str(bundle.path), "lungs").metadata == bundle.metadata


def test_the_metadata_s_hash_is_that_of_what_it_states_not_of_how_it_is_laid_out(bundle):
    before = bundle.metadata_sha256
    turned = dict(reversed(bundle.metadata.items()))
    (bundle.path / "bundle.json").write_text(json.dumps(turned, indent=7), "utf-8")
    assert ModelBundle.load(bundle.path).metadata_sha256 == before
    rewrite(bundle, default_threshold=0.25)
    assert ModelBundle.load(bundle.path).metadata_sha256 != before
    # The same in every version, as finished cases are recognized by it.
    small = ModelBundle(bundle.path, {"name": "Größe", "a": [1, 2.5]})
    assert small.metadata_sha256 == hashlib.sha256('{"a":[1,2.5],"name":"Größe"}'.encode()).hexdigest()
    assert ModelBundle(bundle.path, {"name": "\ud800"}).metadata_sha256  # half of a surrogate pair


def test_bundle_json_is_for_people_too(tmp_path):
    ModelBundle.save(tmp_path / "a", UNet(**ARGUMENTS), {**METADATA, "description": "Lungs of Größe 1"})
    text = (tmp_path / "a" / "bundle.json").read_text("utf-8")
    assert "Größe" in text and text.endswith("}\n") and '\n  "name": "tiny",\n' in text


def test_a_bundle_with_incomplete_metadata_is_not_written(tmp_path):
    with pytest.raises(LesionDecompError, match=r"'version' missing"):
        ModelBundle.save(tmp_path / "a", UNet(**ARGUMENTS), {k: v for k, v in METADATA.items() if k != "version"})
    assert not list(tmp_path.iterdir())


def test_a_bundle_replaces_an_older_one_whole(bundle):
    torch.manual_seed(1)
    newer = ModelBundle.save(bundle.path, UNet(**ARGUMENTS), {**METADATA, "version": "2.0"})
    assert newer.sha256 != bundle.sha256
    assert ModelBundle.load(bundle.path).version == "2.0"
    assert sorted(path.name for path in bundle.path.iterdir()) == ["bundle.json", "weights.safetensors"]


def test_weights_are_stored_in_half_precision_unless_asked_otherwise_and_used_in_float32(tmp_path):
    half = ModelBundle.save(tmp_path / "half", UNet(**ARGUMENTS), METADATA)
    full = ModelBundle.save(tmp_path / "full", UNet(**ARGUMENTS), METADATA, half=False)
    for saved, kind in ((half, torch.float16), (full, torch.float32)):
        state = load_file(saved.path / "weights.safetensors")
        kinds = {value.dtype for value in state.values()}
        assert kinds == {kind, torch.int64}  # the count of batches stays a whole number
        network = saved.network()
        assert not network.training
        assert all(value.dtype == torch.float32 and not value.requires_grad for value in network.parameters())
        assert network.encoder.blocks[0][1].num_batches_tracked.dtype == torch.int64


def test_weights_that_are_not_finite_are_refused(tmp_path):
    network = UNet(**ARGUMENTS)
    with torch.no_grad():
        network.head.weight[0] = float("nan")
    saved = ModelBundle.save(tmp_path / "nan", network, METADATA)
    with pytest.raises(LesionDecompError, match=r"weights of 'tiny' that are not finite"):
        saved.network()


def test_a_network_of_absurd_size_is_refused_before_it_takes_memory(bundle):
    rewrite(bundle, architecture_arguments={**ARGUMENTS, "channels": 256, "levels": 6, "widest": 2048})
    with pytest.raises(LesionDecompError, match=r"more parameters than any bundle may have"):
        ModelBundle.load(bundle.path).network()


def test_an_unknown_architecture_is_refused_with_advice(bundle):
    rewrite(bundle, architecture="transformer")
    with pytest.raises(LesionDecompError, match=r"unknown architecture 'transformer' in bundle 'tiny'.*Update"):
        ModelBundle.load(bundle.path).network()


@pytest.mark.parametrize(
    ("network", "arguments", "changes", "reported"),
    [
        (UNet, {**ARGUMENTS, "out_channels": 1}, {}, "output of shape"),
        (UNet, ARGUMENTS, {"task": "lesions"}, None),
        (DecompositionNet, {"channels": 4, "levels": 2}, {"task": "lungs"}, None),
        (DecompositionNet, {"channels": 4, "levels": 3}, {"task": "lesions", "heat": {"shrink": 4}}, "64×70"),
    ],
)
def test_a_network_that_does_not_do_what_the_bundle_is_for_is_refused(tmp_path, network, arguments, changes, reported):
    names = {UNet: "unet", DecompositionNet: "decomposition"}
    metadata = {**METADATA, "architecture": names[network], "architecture_arguments": arguments, **changes}
    if reported == "64×70":  # 16 × 17 pixels are what the network sees: not halved twice
        metadata["input"] = {**INPUT, "size": [64, 70]}
    saved = ModelBundle.save(tmp_path / "a", network(**arguments), metadata)
    with pytest.raises(LesionDecompError, match=r"weights of 'tiny' that do not load" + ((reported and ".*") or "")):
        saved.network()


@pytest.mark.parametrize("source", ["gate", "lesion", "difference", "change"])
@pytest.mark.parametrize("size", [[64, 32], [32, 64]])
def test_slices_need_not_be_square(tmp_path, source, size):
    arguments = {"channels": 4, "levels": 3}
    metadata = {
        **METADATA,
        "task": "lesions",
        "architecture": "decomposition",
        "architecture_arguments": arguments,
        "input": {**INPUT, "size": size},
        "heat": {"source": source, "shrink": 2},
    }
    saved = ModelBundle.save(tmp_path / "a", DecompositionNet(**arguments), metadata)
    assert isinstance(saved.network(), DecompositionNet)


def test_a_localizer_is_loaded_whatever_it_puts_out(tmp_path):
    arguments = {**ARGUMENTS, "out_channels": 2}
    metadata = {**METADATA, "task": "localizer", "architecture_arguments": arguments}
    assert ModelBundle.save(tmp_path / "a", UNet(**arguments), metadata).network() is not None


def test_where_bundles_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    library = Path(bundles.__file__).resolve().parents[1]
    beside = library.parent / "Resources" / "Models"
    assert model_folders() == [beside, library / "Resources" / "Models", tmp_path / ".lesiondecomp" / "models"]
    ModelBundle.save(tmp_path / ".lesiondecomp" / "models" / "mine", UNet(**ARGUMENTS), {**METADATA, "name": "own"})
    assert find_bundle("own", "lungs").path == find_bundle("mine", "lungs").path
    assert bundle_paths()[-1].name == "mine"
    with pytest.raises(LesionDecompError, match=r"no bundle 'nobody'.*one of: .*lungs-unet, mine"):
        find_bundle("nobody", "lungs")


def test_installed_bundles_are_sorted_by_task_and_name_and_hold_no_broken_one(tmp_path, monkeypatch):
    monkeypatch.setattr(bundles, "model_folders", lambda: [tmp_path])
    assert installed_bundles() == []
    with pytest.raises(LesionDecompError, match=r"no bundle 'a'.*: none"):
        find_bundle("a", "lungs")
    with pytest.raises(LesionDecompError, match=r"no bundle for the task 'lungs'.*Install again"):
        find_bundle(None, "lungs")
    (tmp_path / "0 broken").mkdir()
    (tmp_path / "0 broken" / "bundle.json").write_text("{}")
    for folder, name, task in (("1", "b", "lungs"), ("2", "a", "lungs"), ("3", "c", "localizer")):
        ModelBundle.save(tmp_path / folder, UNet(**ARGUMENTS), {**METADATA, "name": name, "task": task})
    assert [found.name for found in installed_bundles()] == ["c", "a", "b"]
    assert [found.name for found in installed_bundles("lungs")] == ["a", "b"]
    assert [path.name for path in bundle_paths()] == ["0 broken", "1", "2", "3"]
    with pytest.raises(LesionDecompError, match=r"format version None"):
        find_bundle(None, "lungs")  # none calls itself the default


def test_only_a_bundle_that_states_so_is_the_default_of_its_own_task(tmp_path, monkeypatch):
    monkeypatch.setattr(bundles, "model_folders", lambda: [tmp_path])
    for folder, default in (("1", False), ("2", True), ("3", True)):
        ModelBundle.save(tmp_path / folder, UNet(**ARGUMENTS), {**METADATA, "default": default})
    assert find_bundle(None, "lungs").path.name == "2"
    with pytest.raises(LesionDecompError, match=r"no bundle for the task 'lesions'"):
        find_bundle(None, "lesions")
    assert find_bundle(tmp_path / "3", "lungs").path.name == "3"


def test_a_bundle_reckons_as_before_it_was_saved(tmp_path):
    torch.manual_seed(0)
    network = DecompositionNet(channels=4, levels=3, norm="group").eval()
    metadata = {
        **METADATA,
        "task": "lesions",
        "architecture": "decomposition",
        "architecture_arguments": {"channels": 4, "levels": 3, "norm": "group"},
    }
    again = ModelBundle.save(tmp_path / "a", network, metadata, half=False).network("cpu")
    x = torch.rand(2, 1, 64, 64)
    np.testing.assert_allclose(again.gate(x).numpy(), network.gate(x).detach().numpy(), atol=1e-5)
