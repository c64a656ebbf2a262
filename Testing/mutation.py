"""Mutation testing of the modules whose every line must matter: does some test fail when a line is wrong?

mutmut wants the library in a folder ``src``; this puts a copy there, runs the fast unit tests against each mutant and
writes the survivors' differences to one file::

    python Testing/mutation.py -o build/mutation.txt
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    "geometry": ["test_geometry.py"],
    "statistics": ["test_statistics.py"],
    "bundles": ["test_bundles.py"],
}
CONFIGURATION = """[tool.mutmut]
source_paths = ["src"]
only_mutate = {modules}
also_copy = ["Testing", "LesionDecomp"]
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["--hypothesis-profile=mutation", "-p", "no:cacheprovider"]
process_isolation = "forkserver"

[tool.pytest.ini_options]
pythonpath = ["src", "Testing"]
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(MODULES)} (default: all)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the survivors")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N")
    args = parser.parse_args()
    modules = args.modules or list(MODULES)
    if unknown := set(modules) - set(MODULES):
        parser.error(f"no such module: {', '.join(sorted(unknown))}")
    stage = ROOT / "build" / "mutation"
    shutil.rmtree(stage, ignore_errors=True)
    make_stage(stage, modules)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.setdefault("LESIONDECOMP_DATA", str(ROOT.parent / "shared" / "data"))
    mutmut = [sys.executable, "-m", "mutmut"]
    run = subprocess.run([*mutmut, "run", "--max-children", str(args.jobs)], cwd=stage, env=environment, check=False)
    if run.returncode:
        return run.returncode
    results = subprocess.run(
        [*mutmut, "results", "--all", "true"],
        cwd=stage,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    outcomes = dict(line.strip().rsplit(": ", 1) for line in results.stdout.splitlines() if ": " in line)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with args.output.open("w", encoding="utf-8") as file:
        for module in modules:
            own = {name: outcome for name, outcome in outcomes.items() if f".{module}." in name}
            line = f"{module}: {json.dumps(Counter(own.values()))}"
            print(line)
            file.write(f"{line}\n")
            for name, outcome in own.items():
                if outcome != "killed":
                    shown = [*mutmut, "show", name]
                    shown = subprocess.run(
                        shown, cwd=stage, env=environment, check=False, capture_output=True, text=True, encoding="utf-8"
                    )
                    file.write(f"\n# {name}: {outcome}\n{shown.stdout}")
    return 0


def make_stage(stage: Path, modules: list[str]) -> None:
    """Lay out library and tests as mutmut wants them."""
    ignore = shutil.ignore_patterns("__pycache__", "Resources")
    shutil.copytree(ROOT / "LesionDecomp" / "LesionDecompLib", stage / "src" / "LesionDecompLib", ignore=ignore)
    shutil.copytree(ROOT / "LesionDecomp" / "Resources", stage / "LesionDecomp" / "Resources")
    shutil.copytree(ROOT / "Testing", stage / "Testing", ignore=shutil.ignore_patterns("__pycache__"))
    tests = [f"Testing/{name}" for module in modules for name in MODULES[module] if (ROOT / "Testing" / name).exists()]
    configuration = CONFIGURATION.format(
        modules=json.dumps([f"src/LesionDecompLib/{module}.py" for module in modules]), tests=json.dumps(tests)
    )
    (stage / "pyproject.toml").write_text(configuration, encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
