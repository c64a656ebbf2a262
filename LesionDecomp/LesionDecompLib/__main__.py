"""The program ``lesiondecomp``, also as ``python -m LesionDecompLib``: the command line, and what writes Slicer scenes.

The library never imports what knows Slicer; this is the one place that brings both together.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from LesionDecompLib import cli

if TYPE_CHECKING:
    from LesionDecompLib.report.case import SceneWriter


def scene_writer() -> SceneWriter:
    """What writes a result as a Slicer scene."""
    from LesionDecompMrml import scene_file  # here: only ``--scene`` needs it

    return cast("SceneWriter", scene_file)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see :func:`LesionDecompLib.cli.main`."""
    return cli.main(argv, scene_writer)


if __name__ == "__main__":
    sys.exit(main())
