"""The next step's data is made in another thread while this step is computed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Made = TypeVar("Made")


def made_ahead(make: Callable[[int], Made], numbers: Iterable[int]) -> Generator[Made, None, None]:
    """``make`` of each of ``numbers``, in order; the next is made while the caller works with the last.

    Close the generator to end its thread. What ``make`` raises is raised here, when it is its turn.
    """
    # One thread of torch's own there: the steps need the others. Setting it holds for a thread alone, but threads that
    # have not asked for their number yet would take it over: this one asks first.
    torch.get_num_threads()
    with ThreadPoolExecutor(1, "batches", initializer=torch.set_num_threads, initargs=(1,)) as thread:
        waiting = None
        for number in numbers:
            coming = thread.submit(make, number)
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()
