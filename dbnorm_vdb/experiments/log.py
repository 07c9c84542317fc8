"""Writing the event log."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from dbnorm_vdb.errors import InvalidParameterError
from dbnorm_vdb.experiments.events import MAX_LINE_BYTES, Click, Event, Impression, InterleavedImpression
from dbnorm_vdb.experiments.experiment import Experiment
from dbnorm_vdb.experiments.interleaving import Interleaved
from dbnorm_vdb.experiments.keys import MAX_ITEM_LENGTH, MAX_KEY_LENGTH, MAX_NAME_LENGTH, check_text, new_id
from dbnorm_vdb.experiments.segments import Segments
from dbnorm_vdb.parameters import check_count

logger = logging.getLogger("dbnorm_vdb")

_WARN_EVERY = 60.0


class EventLog:
    """Writes impressions and clicks to a folder of JSON-lines files (see `dbnorm_vdb.experiments.segments`).

    Threads may share one; every process makes its own, of the same folder, which must be on a local disk.

    An event that cannot be written (a full disk, a folder that is gone) is dropped: the search goes on, a warning is
    logged once a minute, and `dropped_count` counts it. The next event tries again.

    A call takes some tens of microseconds, little enough for an event loop; with `sync_every` some also wait for the
    disk, so that an event loop should make them in a thread (`asyncio.to_thread`).

    Args:
        path: the folder; made if it is missing.
        max_bytes: a file of that size gets no further events.
        rotate_every: begin a new file with each such period as well, counted from 1970 in UTC.
        sync_every: seconds after which an event also waits until all is on the disk (fsync); 0: every event waits,
            None: the system decides. It matters when the machine fails; events survive a killed process either way.
        key_secret: store a keyed hash (BLAKE2b, 128 bits) of the users' keys instead of the keys. Whoever knows the
            secret can tell whether a key they guess is in the log, so keep it as you keep a password; an experiment's
            salt will do if it is kept so. All writers of a log need the same.

    Attributes:
        path: the folder.
        dropped_count: events that could not be written.

    Raises:
        InvalidParameterError: a size or a time is not positive, or the secret is empty.
        OSError: the folder cannot be made.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 64 << 20,
        rotate_every: timedelta | None = None,
        sync_every: float | None = None,
        key_secret: str | None = None,
    ) -> None:
        check_count(max_bytes, what="max_bytes")
        if rotate_every is not None and rotate_every < timedelta(seconds=1):
            raise InvalidParameterError(f"rotate_every must be at least a second, got {rotate_every!r}")
        if sync_every is not None and not sync_every >= 0:
            raise InvalidParameterError(f"sync_every must be at least 0 seconds, got {sync_every!r}")
        if key_secret is not None and not key_secret:
            raise InvalidParameterError("key_secret is empty; give a secret, or None to store keys as they are")
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._secret = None if key_secret is None else hashlib.blake2b(key_secret.encode()).digest()
        self._segments = Segments(
            self.path,
            max_bytes=max_bytes,
            rotate_seconds=None if rotate_every is None else int(rotate_every.total_seconds()),
            sync_every=sync_every,
        )
        self._lock = threading.Lock()
        self._warned_at = -_WARN_EVERY
        self.dropped_count = 0

    def impression(
        self,
        experiment: Experiment,
        key: str | int | UUID,
        arm: str,
        items: Iterable[object],
        *,
        impression: str | None = None,
        at: datetime | None = None,
    ) -> str:
        """Log that a user was shown results of the arm that they are assigned to.

        Args:
            experiment: the experiment.
            key: what `experiment.assign` was called with.
            arm: what it returned.
            items: the ids that were shown, in order: strings, integers or UUIDs, 1000 at most; none are fine.
            impression: an id for this impression; by default a new, random one.
            at: when; by default now.

        Returns:
            The id of the impression, for `click`.

        Raises:
            InvalidParameterError: an argument is not what it should be. A failing disk raises nothing.
        """
        made = new_id() if impression is None else check_text(impression, what="impression", longest=MAX_NAME_LENGTH)
        ids = tuple(check_text(item, what="item id", longest=MAX_ITEM_LENGTH) for item in items)
        text = check_text(key, what="key", longest=MAX_KEY_LENGTH)
        with _as_invalid_parameter():
            event = Impression(
                at=at or _now(),
                experiment=experiment.name,
                id=made,
                key=self._stored(text),
                arms=experiment.arms,
                weights=experiment.weights,
                arm=check_text(arm, what="arm", longest=MAX_NAME_LENGTH),
                items=ids,
            )
        self._append(event)
        return made

    def interleaved(self, experiment: Experiment, shown: Interleaved[Any], *, at: datetime | None = None) -> str:
        """Log that a user was shown an interleaved list.

        Args:
            experiment: the experiment.
            shown: what `experiment.interleave` returned.
            at: when; by default now.

        Returns:
            The id of the impression, for `click`.

        Raises:
            InvalidParameterError: the list is another experiment's, or has more than 1000 items.
        """
        if len(experiment.arms) != 2:
            raise InvalidParameterError(f"interleaving compares two arms, {experiment.name!r} has {experiment.arms}")
        with _as_invalid_parameter():
            event = InterleavedImpression(
                at=at or _now(),
                experiment=experiment.name,
                id=shown.impression,
                key=self._stored(shown.key),
                arms=(experiment.arms[0], experiment.arms[1]),
                items=shown.ids,
                teams=shown.teams,
                first=shown.first,
            )
        self._append(event)
        return shown.impression

    def click(self, impression: str, item: str | int | UUID, *, at: datetime | None = None) -> None:
        """Log a click. Whether the impression exists and showed the item is for `analyze` to check.

        Args:
            impression: the id that `impression` or `interleaved` returned.
            item: the id of the item. An integer and its digits are the same.
            at: when; by default now.

        Raises:
            InvalidParameterError: the ids cannot be any: empty, too long, of another type.
        """
        with _as_invalid_parameter():
            event = Click(
                at=at or _now(),
                impression=check_text(impression, what="impression", longest=MAX_NAME_LENGTH),
                item=check_text(item, what="item id", longest=MAX_ITEM_LENGTH),
            )
        self._append(event)

    def close(self) -> None:
        """Close the file that is open, after an fsync if there are any. A further event would open it again."""
        with self._lock:
            self._segments.close()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stored(self, key: str) -> str:
        if self._secret is None:
            return key
        return hashlib.blake2b(key.encode(), digest_size=16, key=self._secret).hexdigest()

    def _append(self, event: Event) -> None:
        """Write one event, or drop it."""
        line = event.model_dump_json().encode()
        if len(line) > MAX_LINE_BYTES:
            raise InvalidParameterError(f"an event may have {MAX_LINE_BYTES} bytes, this one has {len(line)}")
        with self._lock:
            try:
                self._segments.append(line)
            except OSError as error:
                self.dropped_count += 1
                self._warn(error)

    def _warn(self, error: OSError) -> None:
        """Log a warning, at most once a minute."""
        now = time.monotonic()
        if now - self._warned_at >= _WARN_EVERY:
            self._warned_at = now
            logger.warning(
                "event log %s: cannot write (%s); %d dropped so far, which the experiment will lack",
                self.path,
                error,
                self.dropped_count,
            )


@contextlib.contextmanager
def _as_invalid_parameter() -> Iterator[None]:
    """What the model of an event refuses, as an error of this library."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "event"
        raise InvalidParameterError(f"{where}: {first['msg']}, got {str(first['input'])[:80]}") from error


def _now() -> datetime:
    return datetime.now(timezone.utc)
