"""``python -m LesionDecompLib.processes.devices``: what this computer can compute on, as one line of JSON."""

from __future__ import annotations

import json
import sys

from ..models.device import available_devices
from .tree import end_with_parent

KEY = "devices"


def parse_devices(text: str) -> dict[str, str]:
    """Device name -> description, from what the process printed; empty where it printed no such line."""
    for line in text.splitlines():
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            continue
        devices = values.get(KEY) if isinstance(values, dict) else None
        if isinstance(devices, dict) and all(isinstance(words, str) for words in devices.values()):
            return devices
    return {}


def main() -> int:
    """Print the line.

    :return: exit status."""

    end_with_parent()
    print(f"\n{json.dumps({KEY: available_devices()})}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
