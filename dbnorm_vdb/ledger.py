"""The collection-level state of one collection: read, replaced in one write, and claimed by one fit at a time.

A claim is part of the state. Its holder renews it while it works; it expires when that stops, and at once when the
holder's process is gone from the same host. Databases offer no compare-and-set here, so a holder looks again shortly
after claiming, at each renewal, and before it activates its generation.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from datetime import datetime, timedelta, timezone

from dbnorm_vdb.errors import FitInProgressError, StatisticsError, StatisticsFormatError
from dbnorm_vdb.statistics import CollectionStatistics, FitClaim, StoredState
from dbnorm_vdb.store import Store

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
        stored = self._store.read_state()
        return StoredState.load(stored, collection=self._store.collection) or StoredState()

    def claim(self) -> FitClaim:
        """Claim the collection for a fit.

        Raises:
            FitInProgressError: another fit holds it.
        """
        state = self.read()
        self._check_free(state)
        claim = new_claim(_next_generation(state))
        self._write(state.model_copy(update={"writing": claim}))
        time.sleep(SETTLE_SECONDS)  # for another fit that read the state in the same moment to show itself
        self._check(claim)
        self._renewed_at = time.monotonic()
        return claim

    def renew(self, claim: FitClaim) -> None:
        """Say that the fit is still at work, if it is time to; FitInProgressError if another took over."""
        if time.monotonic() - self._renewed_at > RENEW_EVERY:
            state = self._check(claim)
            renewal = claim.model_copy(update={"renewed_at": datetime.now(timezone.utc)})
            self._store.write_state(state.model_copy(update={"writing": renewal}))
            self._renewed_at = time.monotonic()

    def activate(self, claim: FitClaim, statistics: CollectionStatistics) -> None:
        """Make a generation the one that searches use: one write. The claim stays, for the cleaning up."""
        state = self._check(claim)
        self._write(state.model_copy(update={"active": statistics}))

    def finish(self, claim: FitClaim) -> None:
        """Let go of the claim of a fit that has cleaned up."""
        self._write(self._check(claim).model_copy(update={"writing": None}))

    def release(self, claim: FitClaim) -> None:
        """Let go of the claim of a fit that failed, as far as the database still answers."""
        with contextlib.suppress(Exception):
            state = self._check(claim)
            self._store.write_state(state.model_copy(update={"writing": _released(claim)}))

    def begin_removal(self) -> bool:
        """Make searches raw before anything is removed; False if there is nothing to remove.

        Raises:
            FitInProgressError: a fit is running.
        """
        if self._store.read_state() in (None, "") and not self._store.has_companions():
            return False
        with contextlib.suppress(StatisticsFormatError):  # what cannot be read can be removed all the same
            self._check_free(self.read())
        self._store.write_state(StoredState(writing=_released(new_claim(1))))
        return True

    def remove(self) -> None:
        """Remove the state."""
        self._store.write_state(None)

    def _write(self, state: StoredState) -> None:
        self._store.write_state(state)
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


def new_claim(generation: int) -> FitClaim:
    """A claim of this process."""
    now = datetime.now(timezone.utc)
    return FitClaim(
        generation=generation,
        host=socket.gethostname()[:255],
        process=os.getpid(),
        token=secrets.token_hex(8),
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
