"""The collection-level state of one collection: read, replaced in one write, and claimed by one fit at a time.

A claim is part of the state. Its holder renews it while it works; it expires when that stops, and at once when the
holder's process is gone from the same host. Databases offer no compare-and-set here, so a holder looks again shortly
after claiming, at each renewal, and before it activates its generation.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone

from dbnorm_vdb.errors import FitInProgressError, StatisticsError, StatisticsFormatError
from dbnorm_vdb.eventloop import uninterrupted
from dbnorm_vdb.statistics import BiasBounds, CollectionStatistics, FitClaim, StoredState
from dbnorm_vdb.store import BOUNDS_KEY, KEY, Store

EXPIRES_AFTER = timedelta(seconds=300)
RENEW_EVERY = 20.0
SETTLE_SECONDS = 0.1


class Ledger:
    """Reads and writes the state through a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._renewed_at = 0.0

    def read(self) -> StoredState:
        """The state; an empty one if none is stored.

        Raises:
            StatisticsFormatError: what is stored is unreadable or of another format version.
        """
        return self._state(self._store.read_documents())

    def active(self) -> CollectionStatistics | None:
        """The statistics that searches use, with bias ranges that hold for all items; None if there are none.

        Raises:
            StatisticsFormatError: what is stored is unreadable or of another format version.
        """
        documents = self._store.read_documents()
        active = self._state(documents).active
        return None if active is None else active.widened(list(_bounds(documents).values()))

    def widen(self, bounds: BiasBounds) -> None:
        """Store bounds, under a key of their own: processes that write items do not get in each other's way."""
        self._store.write_document(BOUNDS_KEY + secrets.token_hex(8), bounds.model_dump(mode="json"))

    def claim(self, *, work: str = "", generation: int | None = None) -> FitClaim:
        """Claim the collection for a fit, of a new generation unless one is named. It holds once it has settled.

        Raises:
            FitInProgressError: another fit holds it.
        """
        state = self.read()
        self._check_free(state)
        claim = new_claim(generation or _next_generation(state), work=work)
        try:
            self._write(state.model_copy(update={"writing": claim}))
        except BaseException:
            self.release(claim)
            raise
        self._renewed_at = time.monotonic()
        return claim

    def settle(self, claim: FitClaim) -> None:
        """Before anything else is written: give a fit that read the state in the same moment time to show itself.

        Raises:
            FitInProgressError: one did.
        """
        time.sleep(max(0.0, self._renewed_at + SETTLE_SECONDS - time.monotonic()))
        self._check(claim)

    def renew(self, claim: FitClaim) -> None:
        """Say that the fit is still at work, if it is time to; FitInProgressError if another took over."""
        if time.monotonic() - self._renewed_at > RENEW_EVERY:
            state = self._check(claim)
            renewal = claim.model_copy(update={"renewed_at": datetime.now(timezone.utc)})
            self._put(state.model_copy(update={"writing": renewal}))
            self._renewed_at = time.monotonic()

    def activate(self, claim: FitClaim, statistics: CollectionStatistics) -> None:
        """Make a generation the one that searches use: one write. The claim stays, for the cleaning up."""
        state = self._check(claim)
        refreshed = state.active is not None and state.active.generation == statistics.generation
        rejected = state.rejected if refreshed else None
        self._write(state.model_copy(update={"active": statistics, "rejected": rejected}))

    def reject(self, claim: FitClaim, statistics: CollectionStatistics) -> None:
        """Record a generation that is not to be used: one write. The claim stays, for the cleaning up."""
        self._write(self._check(claim).model_copy(update={"rejected": statistics}))

    def finish(self, claim: FitClaim, unfinished: FitClaim | None = None) -> None:
        """Let go of the claim of a fit that has cleaned up, and of the bounds that its statistics include.

        Args:
            claim: that is done.
            unfinished: of a dead fit whose generation is still there: it stays on record.
        """
        seen_since = claim.since - EXPIRES_AFTER  # whoever stored bounds before that has long written the items
        for key, bounds in _bounds(self._store.read_documents()).items():
            if bounds.generation != claim.generation or bounds.written_at < seen_since:
                self._store.write_document(key, None)
        self._write(self._check(claim).model_copy(update={"writing": unfinished and _released(unfinished)}))

    def release(self, claim: FitClaim) -> None:
        """Let go of the claim of a fit that failed or was interrupted, as far as the database still answers."""
        with uninterrupted(), contextlib.suppress(Exception):
            state = self._check(claim)
            self._put(state.model_copy(update={"writing": _released(claim)}))

    def begin_removal(self) -> bool:
        """Make searches raw before anything is removed; False if there is nothing to remove.

        Raises:
            FitInProgressError: a fit is running.
        """
        documents = self._store.read_documents()
        if all(document in (None, "") for document in documents.values()) and not self._store.has_leftovers():
            return False
        with contextlib.suppress(StatisticsFormatError):  # what cannot be read can be removed all the same
            self._check_free(self.read())
        self._put(StoredState(writing=_released(new_claim(1))))
        return True

    def remove(self) -> None:
        """Remove all documents of ours, the state last."""
        for key in sorted(self._store.read_documents(), reverse=True):
            self._store.write_document(key, None)

    def _state(self, documents: Mapping[str, object]) -> StoredState:
        return StoredState.load(documents.get(KEY), collection=self._store.collection) or StoredState()

    def _put(self, state: StoredState) -> None:
        self._store.write_document(KEY, state.dump())

    def _write(self, state: StoredState) -> None:
        self._put(state)
        if self.read() != state:
            raise StatisticsError(
                f"collection {self._store.collection!r}: the database did not keep the collection-level statistics"
                f" that were written; {self._store.engine} may be too old for collection metadata, or another process"
                " is fitting the same collection"
            )

    def _check(self, claim: FitClaim) -> StoredState:
        state = self.read()
        if state.writing is None or state.writing.token != claim.token:
            raise FitInProgressError(
                f"collection {self._store.collection!r}: another fit or a drop took over while this fit ran; nothing"
                " of it was activated"
            )
        return state

    def _check_free(self, state: StoredState) -> None:
        claim = state.writing
        if claim is not None and is_alive(claim):
            raise FitInProgressError(
                f"collection {self._store.collection!r} is being fitted by process {claim.process} on {claim.host}"
                f" since {claim.since:%Y-%m-%d %H:%M:%S} UTC; wait for it to end (its claim expires"
                f" {EXPIRES_AFTER.seconds} seconds after it was last renewed)"
            )


def _bounds(documents: Mapping[str, object]) -> dict[str, BiasBounds]:
    """The bounds among the documents, by key; what is none is passed over."""
    found: dict[str, BiasBounds] = {}
    for key, stored in documents.items():
        if key.startswith(BOUNDS_KEY) and stored not in (None, ""):
            with contextlib.suppress(ValueError, RecursionError):
                text = stored if isinstance(stored, str) else json.dumps(stored)
                found[key] = BiasBounds.model_validate_json(text)
    return found


def unfinished(state: StoredState, work: str) -> int | None:
    """The generation of a dead fit of the same work, which a new one may go on with."""
    claim = state.writing
    active = state.active.generation if state.active else 0
    if claim is None or not work or claim.work != work or claim.generation <= active or is_alive(claim):
        return None
    return claim.generation


def new_claim(generation: int, *, work: str = "") -> FitClaim:
    """A claim of this process."""
    now = datetime.now(timezone.utc)
    return FitClaim(
        generation=generation,
        host=socket.gethostname()[:255],
        process=os.getpid(),
        token=secrets.token_hex(8),
        work=work,
        since=now,
        renewed_at=now,
    )


def is_alive(claim: FitClaim) -> bool:
    """Whether the holder may still be writing."""
    if abs(datetime.now(timezone.utc) - claim.renewed_at) > EXPIRES_AFTER:
        return False
    return claim.host != socket.gethostname()[:255] or _process_exists(claim.process)


def _released(claim: FitClaim) -> FitClaim:
    """The claim, expired: it remains as the record that its generation left something behind."""
    return claim.model_copy(update={"renewed_at": datetime.fromtimestamp(0, timezone.utc)})


def _process_exists(process: int) -> bool:
    if os.name == "nt":  # there, asking would end it; its claim expires
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it exists and is somebody else's
        return True
    return True


def _next_generation(state: StoredState) -> int:
    """A number not used before on this collection, even across `drop`: milliseconds since 1970, or the next free one.

    Each differs in parity from the active one, so that an engine may keep two generations in two slots.
    """
    active = state.active.generation if state.active else None
    generation = max(int(1000 * time.time()), (active or 0) + 1, (state.writing.generation if state.writing else 0) + 1)
    wanted_parity = 0 if active is None else 1 - active % 2
    return generation + (generation % 2 != wanted_parity)
