"""Fixtures every test may use: where real CT lies, and the shipped bundles."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# Tests interrupt and hang up programs. A shell that starts the suite in the background has it ignore both signals, and
# programs inherit that; a handler that does nothing is as good for the suite and is not inherited.
for _name in ("SIGINT", "SIGHUP"):
    _number = getattr(signal, _name, None)
    if _number is not None and signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

ROOT = Path(__file__).resolve().parents[1]
pytest_plugins = ["headless_slicer.fixtures", "headless_slicer.panel_fixtures"]


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The development CT data; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("LESIONDECOMP_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the development CT data in {folder} (or LESIONDECOMP_DATA)")
    return folder


@pytest.fixture(scope="session")
def sample_folder() -> Path:
    """The sample CT that ships with the module."""
    return ROOT / "LesionDecomp" / "Resources" / "SampleData"


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """A user's home with small untrained models, for processes of their own."""
    from command_line import small_models

    folder = tmp_path_factory.mktemp("home")
    small_models(folder / ".lesiondecomp" / "models")
    return folder


@pytest.fixture
def models(home, monkeypatch) -> Path:
    """The folder of the small untrained models, which are the only ones installed."""
    from LesionDecompLib.models import bundle as bundles

    folder = home / ".lesiondecomp" / "models"
    monkeypatch.setattr(bundles, "model_folders", lambda: [folder])
    return folder


@pytest.fixture(scope="module")
def models_of_module(home) -> Iterator[Path]:
    """The same for all tests of a module, whose fixtures run the product."""
    from LesionDecompLib.models import bundle as bundles

    folder = home / ".lesiondecomp" / "models"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundles, "model_folders", lambda: [folder])
        yield folder


@pytest.fixture(scope="session", autouse=True)
def _few_threads():
    """More threads than cores make small tensors slow; processes of pytest-xdist share the cores."""
    import torch

    sharing = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, min(2, (os.cpu_count() or 1) // sharing)))
