"""The entry for Slicer's Extension Index keeps the rules that its reviewers and its build system go by.

Facts of the schema: github.com/Slicer/Slicer, Schemas/slicer-extension-catalog-entry-schema-v1.0.1.json. Facts of the
review: github.com/Slicer/ExtensionsIndex, pull request template.
"""

from __future__ import annotations

import json
import re

import pytest
from repository import ROOT, cmake_metadata

ENTRY = ROOT / "LesionDecomp.json"
SCHEMA = (
    "https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/slicer-extension-catalog-entry-schema-v1.0.1.json#"
)
# Key -> type, and the values it may have; no other key is allowed.
KEYS: dict[str, tuple[type, tuple[object, ...] | None]] = {
    "$schema": (str, None),
    "category": (str, None),
    "scm_url": (str, None),
    "scm_revision": (str, None),
    "scm_type": (str, ("git", "local")),
    "build_dependencies": (list, None),
    "build_subdirectory": (str, None),
    "enabled": (bool, None),
    "tier": (int, (1, 3, 5)),
}
REQUIRED = {"$schema", "category", "scm_url"}


def faults(entry: dict[str, object]) -> list[str]:
    """What schema v1.0.1 has against an entry."""
    found = [f"{key} is missing" for key in sorted(REQUIRED - entry.keys())]
    for key, value in entry.items():
        if key not in KEYS:
            found.append(f"{key} is not allowed")
            continue
        kind, choices = KEYS[key]
        if type(value) is not kind or (kind is list and not all(isinstance(item, str) for item in value)):
            found.append(f"{key} is no {kind.__name__}")
        elif choices is not None and value not in choices:
            found.append(f"{key} is none of {choices}")
    return found


@pytest.fixture(scope="module")
def entry() -> dict[str, object]:
    return json.loads(ENTRY.read_text(encoding="utf-8"))


def test_the_entry_fits_the_schema(entry):
    assert faults(entry) == []
    assert entry["$schema"] == SCHEMA


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"homepage": "x"}, "homepage is not allowed"),
        ({"tier": 2}, "tier is none of (1, 3, 5)"),
        ({"tier": True}, "tier is no int"),
        ({"build_dependencies": "PyTorch"}, "build_dependencies is no list"),
        ({"build_dependencies": [1]}, "build_dependencies is no list"),
    ],
)
def test_the_check_finds_what_the_schema_forbids(entry, change, fault):
    assert faults(entry | change) == [fault]
    assert faults({key: value for key, value in entry.items() if key != "scm_url"}) == ["scm_url is missing"]


def test_the_entry_agrees_with_the_extension(entry):
    """The file's name is the extension's; the build system takes the dependencies from the entry, Slicer from CMake."""
    project = re.search(r"^project\((\w+)\)", (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"), re.MULTILINE)
    metadata = cmake_metadata()
    assert project is not None and project.group(1) == ENTRY.stem
    assert entry["build_dependencies"] == metadata["DEPENDS"].split()
    assert entry["scm_url"] == metadata["HOMEPAGE"]
    assert str(entry["scm_url"]).rsplit("/", 1)[1] == f"Slicer{ENTRY.stem}"
    # A branch, so that the index need not change with every commit.
    assert entry["scm_revision"] == "main"
    source = (ROOT / "LesionDecomp" / "LesionDecomp.py").read_text(encoding="utf-8")
    assert f'translate("qSlicerAbstractCoreModule", "{entry["category"]}")' in source


def test_every_picture_and_file_that_a_page_links_to_exists():
    for page in [
        *ROOT.glob("*.md"),
        *(ROOT / "Documentation").glob("*.md"),
        *(ROOT / "Testing").rglob("*.md"),
        *(ROOT / "LesionDecomp").rglob("*.md"),
    ]:
        if ".venv" in page.parts:
            continue
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_the_homepage_reports_what_reviewers_look_for():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("# LesionDecomp\n")
    for heading in ("Tutorial", "Limitations", "Citation", "License"):
        assert re.search(rf"^## .*{heading}", readme, re.MULTILINE), f"no section {heading}"
    assert "Apache-2.0" in readme and (ROOT / "LICENSE").is_file()
    assert "research" in readme[:1500].lower()
    assert "](Documentation/tutorial.md)" in readme
    tutorial = (ROOT / "Documentation" / "tutorial.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^\d+\. ", tutorial, re.MULTILINE)) >= 10
    assert len(re.findall(r"!\[", tutorial)) >= 4


def test_a_page_does_not_name_a_file_of_the_repository_that_is_gone():
    folders = "Testing|Documentation|Examples|Resources|LesionDecomp"
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for name in re.findall(rf"`((?:{folders})/[\w./-]+)`", page.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{page.name} names {name}"
