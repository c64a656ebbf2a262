"""``lesiondecomp models``: the installed model bundles and whether they verify."""

from __future__ import annotations

import argparse
import textwrap


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "models",
        help="list the installed model bundles and verify them",
        description="List the installed model bundles with task, version and description, and verify their weights.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print one entry for each bundle; 1 where there is none or one doesn't verify."""
    from ..bundles import ModelBundle, bundle_paths, user_model_folder
    from ..errors import LesionDecompError
    from . import tell

    failed = 0
    paths = bundle_paths()
    for path in paths:
        try:
            bundle = ModelBundle.load(path)
        except LesionDecompError as error:
            failed += 1
            tell(f"{path.name}\n  NOT USABLE   {error}")
            continue
        default = ", default" if bundle.metadata.get("default") else ""
        tell(f"{bundle.name} {bundle.version} ({bundle.task}{default})")
        for line in textwrap.wrap(bundle.description, 100):
            tell(f"  {line}")
        tell(f"  verified     SHA-256 {bundle.sha256}")
        tell(f"  threshold    {bundle.default_threshold:g}")
    if not paths:
        tell(f"No model bundle is installed. Your own are looked for in {user_model_folder()}.")
    return 1 if failed or not paths else 0
