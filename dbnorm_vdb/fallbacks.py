"""Searches that are served raw since their statistics cannot be used: counted, and told, but not too often."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter

from dbnorm_vdb.errors import DBNormError, StatisticsFormatError, StatisticsTimeoutError

logger = logging.getLogger("dbnorm_vdb")

ABSENT = "absent"
"""There are no statistics."""

UNREADABLE = "unreadable"
"""They are damaged, or of another format version."""

FAILED = "failed"
"""The database did not return them."""

LATE = "late"
"""They did not come within the search's timeout."""

UNCOVERED = "uncovered"
"""They have none of the hits: these are newer, or the statistics of the items are gone."""

_WARN_EVERY = 60.0


def reason_of(error: Exception) -> str:
    """Why a search falls back, by what reading the statistics raised."""
    if isinstance(error, StatisticsTimeoutError):
        return LATE
    return UNREADABLE if isinstance(error, StatisticsFormatError) else FAILED


def in_words(error: Exception) -> str:
    """What an error says; those of the clients do not always say what they are."""
    return str(error) if isinstance(error, DBNormError) else f"{type(error).__name__}: {error}"


class Warnings:
    """Warnings about one collection: one a minute of each kind."""

    def __init__(self, collection: str) -> None:
        self._collection = collection
        self._given_at: dict[str, float] = {}

    def warn(self, kind: str, message: str) -> None:
        """Log a warning, unless there was one of this kind within the last minute."""
        now = time.monotonic()
        if now - self._given_at.get(kind, -_WARN_EVERY) >= _WARN_EVERY:
            self._given_at[kind] = now
            logger.warning("collection %r: %s", self._collection, message)


class Fallbacks(Warnings):
    """The searches of one collection that were served raw for want of statistics."""

    def __init__(self, collection: str) -> None:
        super().__init__(collection)
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, reason: str, message: str) -> None:
        """Count one, and say why."""
        with self._lock:
            self._counts[reason] += 1
        self.warn(reason, f"serving raw results: {message}")

    @property
    def counts(self) -> dict[str, int]:
        """How many there were, by reason."""
        with self._lock:
            return dict(self._counts)
