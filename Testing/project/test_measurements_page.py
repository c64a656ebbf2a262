"""Documentation/measurements.md has every measurement, and every code of a warning in the source, with its limit."""

from __future__ import annotations

import ast
import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from LesionDecompLib.ct.anatomy import LUNGS
from LesionDecompLib.measurement.definitions import REGION_MEASUREMENTS, SCORES
from LesionDecompLib.segmentation.lungs.beside import EFFUSION_ML
from repository import MODULE, ROOT

PAGE = ROOT / "Documentation" / "measurements.md"
LUNG_CODES = [lung.name.replace(" ", "_") for lung in LUNGS]
# Codes that are made, not written: by file and expression, what that expression can be.
MADE_CODES = {
    ("beside.py", "{code}_effusion"): [f"{lung}_effusion" for lung in LUNG_CODES],
    ("beside.py", "{code}_solid_left_out"): [f"{lung}_solid_left_out" for lung in LUNG_CODES],
    ("opaque.py", "{name.replace(' ', '_')}_not_aerated"): [f"{lung}_not_aerated" for lung in LUNG_CODES],
    ("plausibility.py", "no_{name}_lung"): ["no_right_lung", "no_left_lung"],
    ("plausibility.py", "lung_cut_{name}"): ["lung_cut_lowest", "lung_cut_highest"],
}
# Limits that are made of more than constants: by file and expression, the constants in them.
MADE_LIMITS: dict[tuple[str, str], list[str]] = {
    ("grid.py", "limit"): ["UNEVEN"],
    ("grid.py", "max(ROUNDING_MM, ROUNDING_SHARE * regular)"): ["ROUNDING_MM", "ROUNDING_SHARE"],
    ("pipeline.py", "asked"): [],
    ("plausibility.py", "AIR_HU[0] if air < AIR_HU[0] else AIR_HU[1]"): ["AIR_HU"],
    ("plausibility.py", "nearest"): ["SOFT_TISSUE_HU"],
    ("plausibility.py", "low if both < low else high"): ["PLAUSIBLE_LUNGS_ML"],
    ("plausibility.py", "low if right / both < low else high"): ["PLAUSIBLE_SHARE_OF_RIGHT"],
    ("plausibility.py", "low if mean < low else high"): ["PLAUSIBLE_LUNG_HU"],
    ("series.py", "thickness / 0.67"): ["0.67"],
}


@dataclass(frozen=True)
class Made:
    """A place of the source that makes a warning: its file, and what stands for code and limit.

    A code that is a constant's name is that constant.
    """

    path: Path
    code: ast.expr
    limit: ast.expr

    @property
    def codes(self) -> list[str]:
        """That it can make; ``KeyError`` where no one knows."""
        if isinstance(self.code, ast.Constant):
            return [self.code.value]
        return MADE_CODES[self.path.name, template(self.code)]

    @property
    def limits(self) -> list[float]:
        """Numbers in its limit; ``KeyError`` where no one knows."""
        text = ast.unparse(self.limit)
        if (self.path.name, text) not in MADE_LIMITS:
            names = [node.id for node in ast.walk(self.limit) if isinstance(node, ast.Name)]
            if not all(name.isupper() for name in names):
                raise KeyError(self.path.name, text)
            return numbers(value_of(self.path, text))
        return [number for text in MADE_LIMITS[self.path.name, text] for number in numbers(value_of(self.path, text))]


def template(expression: ast.expr) -> str:
    """An f-string as it is written, or a name in braces; in any version of Python the same."""
    parts = expression.values if isinstance(expression, ast.JoinedStr) else [expression]
    return "".join(
        part.value
        if isinstance(part, ast.Constant)
        else f"{{{ast.unparse(part.value if isinstance(part, ast.FormattedValue) else part)}}}"
        for part in parts
    )


def value_of(path: Path, expression: str) -> Any:
    """What an expression of constants is in a file's module."""
    if re.fullmatch(r"[\d.]+", expression):
        return float(expression)
    name = ".".join(path.relative_to(MODULE).with_suffix("").parts)
    return eval(expression, vars(importlib.import_module(name)))


def numbers(value: Any) -> list[float]:
    """All numbers of a constant: one, a pair, pairs."""
    return [number for part in value for number in numbers(part)] if isinstance(value, tuple) else [value]


def found(path: Path, text: str) -> list[Made]:
    """Every place of a file that makes a warning."""
    if "Oddity(" not in text:
        return []
    tree, made = ast.parse(text), []
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and "Oddity" in (getattr(call.func, "id", ""), getattr(call.func, "attr", "")):
            given = dict(zip(("text", "code", "value", "limit"), call.args, strict=False))
            given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
            code = given["code"]
            made.append(
                Made(path, constants.get(code.id, code) if isinstance(code, ast.Name) else code, given["limit"])
            )
    return made


MADE = [made for path in sorted(MODULE.rglob("*.py")) for made in found(path, path.read_text(encoding="utf-8"))]


def rows(heading: str) -> list[list[str]]:
    """Cells of every row of the tables below a heading, their own headings left out."""
    text = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    return [row for row in cells if row[0].startswith("`")]


def limits_of_page() -> dict[str, str]:
    """The cell of the limit, by code."""
    return {code: row[-1] for row in rows("Warnings") for code in re.findall(r"`(\w+)`", row[0])}


def test_each_measurement_stands_in_the_table_as_it_is_defined():
    defined = [[f"`{m.key}`", m.header, m.definition, m.source or "–"] for m in (*REGION_MEASUREMENTS, *SCORES)]
    assert rows("What is measured") == defined


def test_the_codes_of_the_warnings_are_those_of_the_source():
    named = [code for row in rows("Warnings") for code in re.findall(r"`(\w+)`", row[0])]
    assert len(named) == len(set(named))
    assert set(named) == {code for made in MADE for code in made.codes}


def test_what_is_known_of_the_source_is_still_in_it():
    assert MADE_CODES.keys() <= {(made.path.name, template(made.code)) for made in MADE}
    assert MADE_LIMITS.keys() <= {(made.path.name, ast.unparse(made.limit)) for made in MADE}


def test_a_code_or_limit_that_nobody_knows_is_noticed():
    """And what is written, a constant, or known is not."""
    lines = [
        'Oddity(text, "written", value, LIMIT)',
        "ct.Oddity(text, value=1, limit=0, code=CODE)",
        'Oddity(text, f"{code}_effusion", value, EFFUSION_ML)',
        'Oddity(text, f"{code}_new", value, limit)',
    ]
    text = "CODE = 'constant'\n" + "\n".join(lines)
    *known, unknown = found(MODULE / "LesionDecompLib" / "segmentation" / "lungs" / "beside.py", text)
    assert [made.codes for made in known] == [["written"], ["constant"], [f"{lung}_effusion" for lung in LUNG_CODES]]
    assert known[2].limits == [EFFUSION_ML]
    with pytest.raises(KeyError, match="new"):
        unknown.codes  # noqa: B018
    with pytest.raises(KeyError, match="limit"):
        unknown.limits  # noqa: B018


def test_each_warning_has_its_limit():
    """Where the limit is 0 the page may leave it out: something is so, or is counted."""
    cells, missing = limits_of_page(), []
    for made in MADE:
        for code in made.codes:
            stated = re.findall(r"-?\d+(?:\.\d+)?", cells.get(code, ""))
            missing += [f"{code}: {limit:g}" for limit in made.limits if limit and f"{limit:g}" not in stated]
    assert missing == []


def test_each_row_has_meaning_advice_and_limit():
    for row in rows("Warnings"):
        assert len(row) == 4 and all(row), row
        assert row[1].endswith(".") and row[2].endswith("."), row
