"""Three places in a worker: a case is read, one is in the networks, one is written, each while the others go on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Hands a case from place to place; it leaves one only when it has the next, so at most three are in memory."""

    def __init__(self) -> None:
        self._reading, self._computing, self._writing = (threading.Lock() for _ in range(3))
        self._held = threading.local()

    @contextmanager
    def taken(self, alone: bool = False) -> Iterator[None]:
        """Begin with the place for reading; whatever place is held at the end is given back.

        :param alone: hold all three to the end: nothing else goes on in this worker meanwhile.
        """
        places = [self._reading, self._computing, self._writing] if alone else [self._reading]
        held: list[threading.Lock] = []
        self._held.places, self._held.alone = held, alone
        try:
            for place in places:
                place.acquire()
                held.append(place)
            yield
        finally:
            for place in held:
                place.release()

    def to_networks(self) -> None:
        """Go on into the networks."""
        self._move(self._computing)

    def to_writing(self) -> None:
        """Go on to be written."""
        self._move(self._writing)

    def _move(self, place: threading.Lock) -> None:
        if self._held.alone:
            return
        place.acquire()
        held = self._held.places
        held.pop().release()
        held.append(place)
