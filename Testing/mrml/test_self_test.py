"""The module's own self-test, which desktop Slicer offers as Reload & Test, passes without a GUI as well."""

from __future__ import annotations

import pytest

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed (pip install .[headless])")


@pytest.mark.slow
def test_self_test_of_the_module_passes(module, mrml_scene):
    slicer.selfTests["LesionDecomp"](msec=0)


def test_module_states_what_it_is_and_what_it_is_not(module):
    parent = module.headless_module.parent
    assert parent.title == "LesionDecomp"
    assert parent.categories == ["Segmentation"]
    assert "research use only" in parent.helpText
    assert "not a medical device" in parent.helpText.lower()
    assert "Weakly Supervised Learning" in parent.acknowledgementText
