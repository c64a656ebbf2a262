"""Mutation testing changes what it says it changes, and explains only what is there."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest
from mutation.mutants import mutants_of

LIBRARY = Path(__file__).resolve().parents[1] / "LesionDecomp" / "LesionDecompLib"
EXPLAINED = tomllib.loads((Path(__file__).parent / "mutation" / "explained.toml").read_text("utf-8"))
SOURCE = '''
"""A module."""
LIMIT = 3

class Volume:
    @property
    def small(self) -> bool:
        """Whether it is small."""
        if not self.ml < LIMIT:
            raise ValueError("too large for us")
        return self.name in ("a", "of two words") and max(self.ml, 1.5) > 0
'''


def test_every_kind_of_change_is_made_once_and_in_its_place():
    mutants = mutants_of(SOURCE)
    assert [mutant.name for mutant in mutants] == [
        "module: 3 → 4",
        "Volume.small: if not self.ml < LIMIT → if True",
        "Volume.small: if not self.ml < LIMIT → if False",
        "Volume.small: not self.ml < LIMIT → self.ml < LIMIT",
        "Volume.small: self.ml < LIMIT → self.ml <= LIMIT",
        "Volume.small: self.ml < LIMIT → self.ml >= LIMIT",
        "Volume.small: raise ValueError('too large for us') → pass",
        "Volume.small: return self.name in ('a', 'of two words') and max(self.ml, 1.5) > 0 → return None",
        "Volume.small: self.name in ('a', 'of two words') and max(self.ml, 1.5) > 0 → "
        "self.name in ('a', 'of two words') or max(self.ml, 1.5) > 0",
        "Volume.small: self.name in ('a', 'of two words') and max(self.ml, 1.5) > 0 → max(self.ml, 1.5) > 0",
        "Volume.small: self.name in ('a', 'of two words') and max(self.ml, 1.5) > 0 → "
        "self.name in ('a', 'of two words')",
        "Volume.small: self.name in ('a', 'of two words') → self.name not in ('a', 'of two words')",
        "Volume.small: 'a' → 'XXa'",
        "Volume.small: max(self.ml, 1.5) > 0 → max(self.ml, 1.5) >= 0",
        "Volume.small: max(self.ml, 1.5) > 0 → max(self.ml, 1.5) <= 0",
        "Volume.small: max(self.ml, 1.5) → min(self.ml, 1.5)",
        "Volume.small: 1.5 → 2.5",
        "Volume.small: 0 → 1",
    ]
    original = ast.unparse(ast.parse(SOURCE)).splitlines()
    for mutant in mutants:
        changed = ast.unparse(mutant.tree).splitlines()
        assert sum(a != b for a, b in zip(original, changed, strict=True)) == 1
        compile(mutant.tree, "mutant.py", "exec")


@pytest.mark.parametrize("module", ["geometry", "statistics", "bundles"])
def test_what_is_explained_is_there_and_has_a_reason(module):
    names = [mutant.name for mutant in mutants_of((LIBRARY / f"{module}.py").read_text("utf-8"))]
    assert len(set(names)) == len(names)
    explained = [entry["mutant"] for entry in EXPLAINED.get(module, [])]
    assert set(explained) <= set(names) and len(set(explained)) == len(explained)
    assert all(len(entry["why"].split()) > 3 for entry in EXPLAINED.get(module, []))
