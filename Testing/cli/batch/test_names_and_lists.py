"""Lists of inputs as PowerShell and people write them, and folders with names that Windows takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from LesionDecompLib.cli.batch.folder_names import LONGEST, safe_folder_name
from LesionDecompLib.cli.batch.input_list import listed_inputs, names_in
from LesionDecompLib.cli.batch.plan import plan_cases
from LesionDecompLib.errors import InputError

TEXT = "# today\r\n\r\nfirst scan.nrrd\r\n\"Größe 2.nii.gz\"\r\n'third.mha'\r\n  C:\\a b\\c.nrrd  \r\n"
NAMES = ["first scan.nrrd", "Größe 2.nii.gz", "third.mha", "C:\\a b\\c.nrrd"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_lists_are_read_in_every_unicode_encoding(encoding, tmp_path):
    assert names_in(TEXT.encode(encoding)) == NAMES
    (tmp_path / "list.txt").write_bytes(TEXT.encode(encoding))
    assert listed_inputs(tmp_path / "list.txt") == [Path(name) for name in NAMES]


def test_another_encoding_is_refused_by_name(tmp_path):
    (tmp_path / "list.txt").write_bytes("Größe.nrrd\n".encode("cp1252"))
    with pytest.raises(InputError, match=r"'list\.txt', which is neither UTF-8 nor UTF-16 text") as error:
        listed_inputs(tmp_path / "list.txt")
    assert error.value.code == "list_encoding"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chest", "chest"),
        ("Größe 1", "Größe 1"),
        ("1.2.840.113619", "1.2.840.113619"),
        ("CON", "CON_"),
        ("con.scan", "con_.scan"),
        ("COM7", "COM7_"),
        ("COM10", "COM10"),
        ("LPT¹", "LPT¹_"),
        ("console", "console"),
        ("scan.", "scan_"),
        ("scan. . ", "scan_"),
        ("...", "_"),
        ("", "_"),
        ('a<b>c:d"e/f\\g|h?i*j', "a_b_c_d_e_f_g_h_i_j"),
        ("tab\tand\x00zero", "tab_and_zero"),
        ("x" * 400, "x" * LONGEST),
    ],
)
def test_folder_names_are_those_that_every_system_takes(name, expected):
    assert safe_folder_name(name) == expected
    assert safe_folder_name(expected) == expected


def test_cases_get_such_folders_and_none_shares_one():
    inputs = [Path("a/CON.nrrd"), Path("a/con.nii.gz"), Path("b/scan..nrrd"), Path("b/scan_.nrrd"), Path("b/x?.nrrd")]
    cases = plan_cases(inputs, Path("out"))
    assert len({case.folder.name.casefold() for case in cases}) == len(cases)
    assert all(safe_folder_name(case.folder.name) == case.folder.name for case in cases)
    assert cases[-1].folder == Path("out/x_")
