"""The header of a NRRD file: its fields, where its voxels begin, and the grid that it describes.

Format: https://teem.sourceforge.net/nrrd/format.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError
from .stored_image import CT, check_size, check_spacing, damaged

MAX_HEADER_BYTES = 2**24
# Factors that turn a space's axes into RAS.
SPACES = {
    "left-posterior-superior": (-1, -1, 1),
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
}
SHORT_SPACES = {"lps": "left-posterior-superior", "ras": "right-anterior-superior", "las": "left-anterior-superior"}
TYPES = {
    "i1": "signed char|int8|int8_t",
    "u1": "uchar|unsigned char|uint8|uint8_t",
    "i2": "short|short int|signed short|signed short int|int16|int16_t",
    "u2": "ushort|unsigned short|unsigned short int|uint16|uint16_t",
    "i4": "int|signed int|int32|int32_t",
    "u4": "uint|unsigned int|uint32|uint32_t",
    "i8": "longlong|long long|long long int|signed long long|signed long long int|int64|int64_t",
    "u8": "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t",
    "f4": "float",
    "f8": "double",
}
ENCODINGS = {"raw": "raw", "txt": "text", "text": "text", "ascii": "text", "hex": "hex", "gz": "gzip", "gzip": "gzip",
             "bz2": "bzip2", "bzip2": "bzip2"}  # fmt: skip


@dataclass(frozen=True)
class NrrdHeader:
    """What a NRRD header states.

    :param fields: by lower-case name.
    :param own: keys and values of the writer's own (``key:=value``), as 3D Slicer describes segments.
    :param listed: lines behind ``data file: LIST``.
    :param end: bytes of the header, the empty line included.
    """

    fields: dict[str, str]
    own: dict[str, str] = field(default_factory=dict)
    listed: tuple[str, ...] = ()
    end: int = 0

    @classmethod
    def read(cls, path: Path) -> NrrdHeader:
        """Read the header of a .nrrd or .nhdr; without fields where there is none."""
        with open(path, "rb") as stream:
            if not stream.read(8).startswith(b"NRRD00"):
                return cls({})
            stream.seek(0)
            head = stream.read(MAX_HEADER_BYTES)
        gap = re.search(rb"\r?\n\r?\n", head)
        lines = head[: gap.start() if gap else len(head)].decode("utf-8", "replace").split("\n")[1:]
        fields: dict[str, str] = {}
        own: dict[str, str] = {}
        listed: list[str] = []
        for line in (line.rstrip("\r") for line in lines):
            if line.startswith("#"):
                continue
            if re.match("LIST", fields.get("data file", "")):
                listed.append(line)
            elif match := re.match(r"([^:]{1,64}):(?!=)\s*(.*)", line):
                name = match[1].strip().lower()
                fields[{"datafile": "data file"}.get(name, name)] = match[2].strip()
            elif ":=" in line:
                key, value = line.split(":=", 1)
                own[key.strip()] = value.replace("\\n", "\n").replace("\\\\", "\\")
        return cls(fields, own, tuple(listed), gap.end() if gap else len(head))

    @property
    def encoding(self) -> str:
        """``"raw"``, ``"text"``, ``"hex"``, ``"gzip"`` or ``"bzip2"``; empty where it is none of these."""
        return ENCODINGS.get(self.fields.get("encoding", "").lower(), "")

    @property
    def has_orientation(self) -> bool:
        """Whether the header states where right and left are."""
        return self.space in SPACES

    @property
    def space(self) -> str:
        """The name of the space in full, without time; may be one without directions of the body."""
        name = self.fields.get("space", "").lower()
        name = name.removesuffix("-time") if len(name) != 4 else name.removesuffix("t")
        return SHORT_SPACES.get(name, name)

    @property
    def _is_in_time(self) -> bool:
        name = self.fields.get("space", "").lower()
        return name.endswith("-time") or (len(name) == 4 and name.endswith("t"))

    def skip(self, name: str, stage: str) -> int:
        """Lines or bytes to skip before the voxels: ``name`` is ``"line"`` or ``"byte"``; -1 for those at the end.

        :raises LesionDecompError: no such number.
        """
        text = self.fields.get(f"{name} skip", self.fields.get(f"{name}skip", "0"))
        if not re.fullmatch(r"\d{1,9}|-1" if name == "byte" else r"\d{1,6}", text):
            raise damaged(stage, "NRRD file", f"{name} skip '{text[:20]}'")
        return int(text)

    def dtype(self, stage: str) -> np.dtype:
        """Type of the voxels, in the file's byte order.

        :raises LesionDecompError: none of a real number.
        """
        name = re.sub(r"\s+", " ", self.fields.get("type", "").lower())
        code = next((code for code, names in TYPES.items() if name in names.split("|")), None)
        if code is None:
            raise InputError(stage, f"voxels of type '{name[:40]}'", f"{CT} with real numbers", code="voxel_type")
        return np.dtype((">" if self.fields.get("endian", "").lower() == "big" else "<") + code)

    def sizes(self, stage: str) -> tuple[int, ...]:
        """Voxels along each axis, the fastest first.

        :raises LesionDecompError: no numbers, or another count of them than of dimensions.
        """
        texts = self.fields.get("sizes", "").split()
        sizes = tuple(int(text) if re.fullmatch(r"\d{1,10}", text) else 0 for text in texts)
        if not sizes or str(len(sizes)) != self.fields.get("dimension", str(len(sizes))):
            raise damaged(stage, "NRRD file", "another number of sizes than of dimensions")
        return sizes

    def space_axes(self, stage: str) -> tuple[int, int, int]:
        """Which axes are those of space, of three or more; the others hold components or points in time.

        :raises LesionDecompError: not three, or several voxels along another one.
        """
        sizes = self.sizes(stage)
        count = len(sizes)
        directions = self.directions(stage)
        axes = [n for n, vector in enumerate(directions) if vector is not None] if len(directions) == count else []
        if len(axes) != 3:
            kinds = self.fields.get("kinds", "").lower().split()
            spatial = [n for n, kind in enumerate(kinds) if kind in ("domain", "space")] if len(kinds) == count else []
            axes = spatial if len(spatial) == 3 and count > 3 else list(range(min(3, count)))
        others = [n for n in range(count) if n not in axes]
        first = int(np.prod([float(sizes[n]) for n in others if n < axes[0]]))
        text = (*[sizes[n] for n in axes], *[sizes[n] for n in others if n > axes[0]])
        check_size(stage, text, first if first < 2**31 else 0)
        return axes[0], axes[1], axes[2]

    def directions(self, stage: str) -> list[list[float] | None]:
        """Direction of each axis, mm, None for one that is none of space; empty where the header gives none.

        :raises LesionDecompError: numbers with decimal commas, or none.
        """
        found: list[list[float] | None] = []
        for text in re.findall(r"\([^)]*\)|none", self.fields.get("space directions", "")):
            vector = None if text == "none" else self._vector(text, stage)
            found.append(vector if vector is not None and any(vector) else None)
        return found

    def _vector(self, text: str, stage: str) -> list[float]:
        """The three numbers of a vector in parentheses that are of space; a fourth is of time.

        :raises LesionDecompError: another number of them, as where a comma is the decimal sign.
        """
        dimensions = self.fields.get("space dimension", "")
        expected = int(dimensions) if dimensions in ("2", "3", "4") else 4 if self._is_in_time else 3
        parts = [part.strip() for part in text.strip().strip("()").split(",")]
        if len(parts) > expected and all(re.fullmatch(r"[-+]?\d*(\.0*)?(e[-+]?\d+)?", part, re.I) for part in parts):
            raise InputError(
                stage,
                f"the vector {text.strip()[:60]} with commas as decimal signs",
                "points as decimal signs",
                "Correct the header, or save the file again where a point is the decimal sign.",
                code="decimal_commas",
            )
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            numbers = []
        if len(numbers) != expected:
            raise damaged(stage, "NRRD file", f"the vector {text.strip()[:60]}")
        return numbers[:3]

    def matrix(self, axes: tuple[int, int, int], stage: str) -> tuple[np.ndarray, bool]:
        """Index to RAS, ``(4, 4)``, mm; and whether the header gives the voxels' spacing.

        Without a space of the body's directions the axes are taken for LPS, as other programs do.

        :raises LesionDecompError: an impossible spacing.
        """
        matrix = np.eye(4)
        directions = self.directions(stage)
        known = False
        if directions and max(axes) < len(directions) and all(directions[axis] is not None for axis in axes):
            matrix[:3, :3] = np.array([directions[axis] for axis in axes], dtype=np.float64).T
            check_spacing(stage, np.linalg.norm(matrix[:3, :3], axis=0))
            if "space origin" in self.fields:
                matrix[:3, 3] = self._vector(self.fields["space origin"], stage)
            known = True
        elif "spacings" in self.fields:
            spacings = [_decimal(text) for text in self.fields["spacings"].split()]
            if len(spacings) != len(self.sizes(stage)):
                raise damaged(stage, "NRRD file", f"the spacings {self.fields['spacings'][:60]}")
            check_spacing(stage, [spacings[axis] for axis in axes])
            matrix[:3, :3] = np.diag([spacings[axis] for axis in axes])
            origin = [_decimal(text) for text in self.fields.get("axis mins", "").replace("axismins", "").split()]
            if len(origin) > max(axes) and np.isfinite([origin[axis] for axis in axes]).all():
                matrix[:3, 3] = [origin[axis] for axis in axes]
            known = True
        signs = np.array(SPACES.get(self.space, SPACES["left-posterior-superior"]))
        matrix[:3] *= signs[:, None]
        return matrix + 0.0, known


def _decimal(text: str) -> float:
    """A number, also with a comma as its decimal sign; NaN where it is none."""
    try:
        return float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except ValueError:
        return float("nan")
