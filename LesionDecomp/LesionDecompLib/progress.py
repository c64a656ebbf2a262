"""One lock for standard error: readers in another thread silence it for a moment, and nobody's words get lost."""

from __future__ import annotations

import threading

STDERR = threading.RLock()
