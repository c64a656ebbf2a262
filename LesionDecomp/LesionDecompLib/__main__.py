"""``python -m LesionDecompLib``: the command line without an installed script."""

import sys

from LesionDecompLib.cli import main

if __name__ == "__main__":
    sys.exit(main())
