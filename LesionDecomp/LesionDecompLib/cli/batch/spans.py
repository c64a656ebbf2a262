"""Keeps a Dask scheduler's memory flat however many tasks it is given one by one.

It notes for each submission what kind of collection was submitted, in a list that it never shortens: about 0.3 KB for
each case (``distributed.spans``, Dask 2026.8).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from distributed import Scheduler
from distributed.spans import SpanMetadata, SpansSchedulerExtension


class _BriefSpans(SpansSchedulerExtension):  # type: ignore[misc]
    def observe_tasks(self, tss: Iterable[Any], code: Any, span_metadata: Any) -> Any:
        return super().observe_tasks(tss, code=code, span_metadata=SpanMetadata(collections=[]))


def note_no_submissions(dask_scheduler: Scheduler) -> None:
    """Have a scheduler note no kinds of collections any more; everything else on its dashboard stays as it is.

    :param dask_scheduler: given by Dask.
    """
    extension = dask_scheduler.extensions.get("spans")
    if type(extension) is SpansSchedulerExtension:
        extension.__class__ = _BriefSpans
