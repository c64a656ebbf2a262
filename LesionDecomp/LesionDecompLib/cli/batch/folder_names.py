"""Names of folders that every system takes: results made on Linux may lie on a Windows share."""

from __future__ import annotations

import re
import unicodedata

PORTS = {f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³"}
RESERVED = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | PORTS
LONGEST = 120  # characters; 255 bytes and whole paths of 260 characters are the narrowest limits


def safe_folder_name(name: str) -> str:
    """The name with what Windows forbids in it replaced by ``_``; the same name where there is nothing to replace.

    Windows takes none of ``<>:"/\\|?*`` and control characters, drops dots and spaces at the end, and keeps the names
    of devices for itself, also before a dot.

    >>> [safe_folder_name(name) for name in ("CON", "nul.1", "a: b?", "scan. ", "...", "Größe 1")]
    ['CON_', 'nul_.1', 'a_ b_', 'scan_', '_', 'Größe 1']
    """
    safe = "".join("_" if c in '<>:"/\\|?*' or unicodedata.category(c) in ("Cc", "Cs") else c for c in name)
    safe = re.sub(r"[. ]+$", "_", safe[:LONGEST])
    stem, dot, rest = safe.partition(".")
    if stem.strip().upper() in RESERVED:
        safe = f"{stem}_{dot}{rest}"
    return safe or "_"
