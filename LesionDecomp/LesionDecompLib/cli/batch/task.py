"""A case as it travels to a worker, and what comes back: words and numbers, never voxels."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .plan import Case

# Of the command's arguments, what belongs to the terminal or to the sharing, not to a case.
_TERMINAL = frozenset(("run", "usage_error", "command_line", "quiet", "scene_writer"))
_SHARING = frozenset(("inputs", "list", "output", "processes", "scheduler"))


@dataclass(frozen=True)
class CaseTask:
    """What a worker needs to know of a case.

    :param run: names the run, on a cluster that others use too.
    :param number: of the case in the run.
    :param slot: its place among the tasks under way; places are used again, so that what is kept of them stays small.
    :param path, folder: absolute.
    :param options: of ``lesiondecomp segment``.
    :param models: SHA-256 of weights and of metadata, by task.
    """

    run: str
    number: int
    slot: int
    name: str
    path: str
    folder: str
    options: Mapping[str, Any]
    models: Mapping[str, tuple[str, str]]

    def arguments(self) -> argparse.Namespace:
        """The options as the command line has them."""
        return argparse.Namespace(**self.options)

    def case(self) -> Case:
        """The case, not run."""
        return Case(self.name, Path(self.path), Path(self.folder))


@dataclass(frozen=True)
class CaseRow:
    """How a case went: a row of the summary, and what is printed of it.

    :param status: as of :class:`.plan.Case`; empty when the run was stopped before.
    :param line: key measurements of a case that was computed.
    :param warnings: a sentence each.
    """

    status: str
    message: str = ""
    input_sha256: str = ""
    measurements: Mapping[str, float] | None = None
    line: str = ""
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, case: Case) -> CaseRow:
        """How a case went that an earlier run has done."""
        return cls(case.status, case.message, case.input_sha256, case.measurements)

    def enter(self, case: Case) -> None:
        """Take this over into the case."""
        case.status, case.message, case.input_sha256 = self.status, self.message, self.input_sha256
        case.measurements = dict(self.measurements or {})


def case_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options that go with each case; paths are absolute, as a worker may run anywhere."""
    options = {key: value for key, value in vars(args).items() if key not in _TERMINAL | _SHARING}
    options = {key: value.absolute() if isinstance(value, Path) else value for key, value in options.items()}
    if args.model is not None and Path(args.model).is_dir():
        options["model"] = str(Path(args.model).absolute())
    # What writes scenes knows Slicer; a worker needs it only where scenes are asked for.
    options["scene_writer"] = args.scene_writer if args.scene else None
    return options
