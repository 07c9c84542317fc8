"""The files of an event log: a folder of JSON-lines files, its segments, that many processes append to at once.

- A line is one `write` to a file opened with O_APPEND, which local file systems carry out as a whole, one after the
  other. No locks between processes; nothing is ever renamed or rewritten.
- A newline stands on both sides of a line, as in RFC 7464: what a process that was killed, or a disk that was full,
  left unfinished spoils its own line and never the next one. Readers skip blank lines.
- A segment that has reached its size is left for the one with the next number, which whoever comes first creates.
  Writers that still have the old one open look at its size before each line; so it may exceed the size by a line of
  each writer, and nothing is lost or written twice. With a period, names begin with its start, which all writers get
  from the clock.
- Old segments may be moved or deleted at any time, whole.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

_NAME = re.compile(r"(?P<period>(?:\d{8}T\d{6}Z-)?)(?P<number>\d{6,18})\.jsonl")


class Segments:
    """Appends lines to the newest segment. Not for several threads at once; every process has its own.

    Args:
        folder: where the segments are; it exists.
        max_bytes: a segment of that size gets no further lines.
        rotate_seconds: a new segment with each such period of the Unix time; None for none.
        sync_every: seconds after which a line also waits until all is on the disk; None for never.
    """

    def __init__(self, folder: Path, *, max_bytes: int, rotate_seconds: int | None, sync_every: float | None) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._rotate_seconds = rotate_seconds
        self._sync_every = sync_every
        self._synced_at = float("-inf")
        self._descriptor: int | None = None
        self._period = ""

    def append(self, line: bytes) -> None:
        """Write one line, in one piece.

        Raises:
            OSError: it could not be written, or only in part. The next line opens its segment anew.
        """
        try:
            descriptor = self._open()
            written = os.write(descriptor, b"\n" + line + b"\n")
            if written < len(line) + 2:
                raise OSError(f"only {written} of {len(line) + 2} bytes could be written")
            now = time.monotonic()
            if self._sync_every is not None and now - self._synced_at >= self._sync_every:
                os.fsync(descriptor)
                self._synced_at = now
        except OSError:
            self._release()
            raise

    def close(self) -> None:
        """Close the open segment, after an fsync if there are any."""
        if self._descriptor is not None and self._sync_every is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._descriptor)
        self._release()

    def _open(self) -> int:
        """The descriptor of a segment that takes another line: the one in use, or one that is opened now."""
        period = self._current_period()
        if self._descriptor is not None:
            found = os.fstat(self._descriptor)
            if period == self._period and found.st_size < self._max_bytes and found.st_nlink:  # not deleted
                return self._descriptor
            self._release()
        names = (_NAME.fullmatch(path.name) for path in self._folder.iterdir())
        number = max((int(name["number"]) for name in names if name and name["period"] == period), default=1)
        while True:
            path = self._folder / f"{period}{number:06d}.jsonl"
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
            if os.fstat(descriptor).st_size < self._max_bytes:
                break
            os.close(descriptor)
            number += 1
        self._descriptor, self._period = descriptor, period
        if self._sync_every is not None:
            _sync_folder(self._folder)
        return descriptor

    def _current_period(self) -> str:
        if self._rotate_seconds is None:
            return ""
        start = time.time() // self._rotate_seconds * self._rotate_seconds
        return time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime(start))

    def _release(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with contextlib.suppress(OSError):
                os.close(descriptor)


def segment_files(folder: Path) -> list[Path]:
    """The segments in a folder, oldest first."""
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def _sync_folder(folder: Path) -> None:
    """So that the name of a new segment, too, outlives a failure of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
