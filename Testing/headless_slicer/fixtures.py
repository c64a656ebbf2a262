"""Pytest fixtures of the headless Slicer; register with ``pytest_plugins = ["headless_slicer.fixtures"]``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

MODULE_FILE = Path(__file__).resolve().parents[2] / "LesionDecomp" / "LesionDecomp.py"


@pytest.fixture(scope="session")
def slicer_session(tmp_path_factory):
    """The application, started once for the session."""
    pytest.importorskip("slicer", reason="slicer-core is not installed (pip install .[headless])")
    from headless_slicer import boot

    return boot(tmp_path_factory.mktemp("slicer"))


@pytest.fixture(scope="session")
def module(slicer_session):
    """The Python module of LesionDecomp.py, loaded as Slicer loads it."""
    return slicer_session.load_module(MODULE_FILE)


@pytest.fixture
def mrml_scene(slicer_session) -> Iterator:
    """The application's scene, empty before and after the test."""
    slicer_session.clear()
    yield slicer_session.scene
    slicer_session.clear()
