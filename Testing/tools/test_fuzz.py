"""A few hundred mutated inputs of the campaign that ``make fuzz`` runs at length: loaded or refused, nothing else."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress

import pytest
from fuzz.__main__ import NAMES, series
from fuzz.campaign import run_inputs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.training.config import PRESETS, load_config
from LesionDecompLib.training.data.export import read_slice_labels
from LesionDecompLib.training.data.slices import read_index
from repository import MODULE

INPUTS = 360
FEW = settings(
    max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.slow
def test_mutated_inputs_of_every_loader_are_loaded_or_refused(tmp_path):
    tally = run_inputs(",".join(NAMES), 7, INPUTS, tmp_path, series())
    assert tally.findings == [] and tally.outcomes.total() == INPUTS
    assert tally.outcomes["loaded"] > 20 and tally.outcomes["refused"] > 100
    assert tally.peak_mib < tally.first_mib + 1024


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_the_campaign_notices_what_it_is_there_for(tmp_path, monkeypatch):
    """With a loader of statistics that fails in four ways, all four are found out, and every input has its turn."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, pathlib, time\n"
        "import LesionDecompLib.measurement.statistics as module\n"
        "calls = pathlib.Path(__file__).with_name('calls')\n"
        "def read_statistics_csv(path):\n"
        "    calls.write_text(calls.read_text() + '.' if calls.exists() else '.')\n"
        "    number = len(calls.read_text())\n"
        "    number == 1 and 1 / 0\n"
        "    number == 2 and bytearray(3 << 30)\n"
        "    number == 3 and time.sleep(600)\n"
        "    number == 4 and os.kill(os.getpid(), 9)\n"
        "module.read_statistics_csv = read_statistics_csv\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(MODULE)]))
    tally = run_inputs("statistics", 1, 4, tmp_path, limit_s=5.0)
    expected = ["ZeroDivisionError", "MemoryError", "a hang", "a crash"]
    assert [finding.split(": ")[1] for finding in tally.findings] == expected
    assert list(tally.outcomes) == expected
    kept = sorted(path.name for path in tmp_path.glob("statistics-*"))
    assert kept == ["statistics-1-0", "statistics-1-1"]


SETTINGS = ["steps", "schedule", "crop", "batch.crop", "optimizer.betas", "network.norm", "critic", "augmentation"]


class TestAnyText:
    @FEW
    @given(text=st.text(max_size=200) | st.from_regex(r"(case,slice,label(,split)?\n)?([^\n]{0,12},){2,3}[^\n]{0,8}\n"))
    def test_labels_and_index(self, tmp_path, text):
        (tmp_path / "index.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
        for load in (read_index, lambda folder: read_slice_labels(folder / "index.csv")):
            with suppress(LesionDecompError):
                load(tmp_path)

    @FEW
    @given(
        key=st.sampled_from(
            [
                "steps",
                "schedule",
                "crop",
                "batch.crop",
                "optimizer.betas",
                "network",
                "network.norm",
                "critic",
                "augmentation",
            ]
        ),
        value=JSON,
    )
    def test_settings(self, key, value):
        with suppress(LesionDecompError):
            load_config(PRESETS["default"], None, [f"{key}={json.dumps(value)}"])
