"""What stands in several files states the same in all of them: versions, tools, citation."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest
from LesionDecompLib import __version__
from repository import ROOT, cmake_metadata

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (pip install .[test])")


@pytest.fixture(scope="module")
def constraints() -> dict[str, str]:
    text = (ROOT / "Testing" / "constraints.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_citation_names_this_version_the_method_and_the_data():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert citation["version"] == __version__
    assert citation["license"] == "Apache-2.0"
    assert citation["repository-code"] == cmake_metadata()["HOMEPAGE"]
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= reference.keys()
        for author in reference["authors"]:
            assert author.keys() in ({"family-names", "given-names"}, {"name"})
    notes = {reference["type"]: reference for reference in citation["references"]}
    source = (ROOT / "LesionDecomp" / "LesionDecomp.py").read_text(encoding="utf-8")
    assert "Towards Unbiased COVID-19 Lesion Localisation" in notes["conference-paper"]["title"]
    for author in notes["conference-paper"]["authors"]:
        assert f"{author['family-names']} {author['given-names'][0]}." in source.replace("W.-S.", "W.")


def test_changelog_has_a_heading_for_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## .*\b{re.escape(__version__)}\b", text, re.MULTILINE)


def test_pre_commit_judges_as_continuous_integration_does(constraints):
    config = ROOT / ".pre-commit-config.yaml"
    hooks = [hook for repo in yaml.safe_load(config.read_text(encoding="utf-8"))["repos"] for hook in repo["hooks"]]
    pinned = [package for hook in hooks for package in hook.get("additional_dependencies", [])]
    assert pinned
    for package in pinned:
        name, version = package.split("==")
        assert constraints[name] == version, f".pre-commit-config.yaml pins {package}"
    pytest.importorskip("pre_commit", reason="pre-commit is not installed (pip install .[dev])")
    subprocess.run([sys.executable, "-m", "pre_commit", "validate-config", str(config)], check=True, timeout=60)


def test_every_tool_of_the_tests_is_pinned(constraints, project):
    extras = project["project"]["optional-dependencies"]
    pinned = {name.lower() for name in constraints}
    for requirement in (*project["project"]["dependencies"], *extras["test"], *extras["headless"]):
        name = re.match(r"[\w.-]+", requirement).group(0)
        assert name.lower() in pinned, f"{name} is not in Testing/constraints.txt"
    for extra in ("dicom", "evaluation", "headless"):
        assert set(extras[extra]) <= set(extras["test"])


def test_the_package_states_that_it_is_typed():
    """PEP 561: without the marker, type checkers take everything from an installed package for Any."""
    assert (ROOT / "LesionDecomp" / "LesionDecompLib" / "py.typed").is_file()
