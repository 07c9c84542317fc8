"""Reading an event log, as untrusted input: what is no event is skipped and counted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from dbnorm_vdb.errors import EventLogError
from dbnorm_vdb.experiments.events import EVENTS, FORMAT_VERSION, MAX_LINE_BYTES, Event
from dbnorm_vdb.experiments.segments import segment_files


@dataclass
class LinesRead:
    """What the lines of a log were.

    Attributes:
        events: read as events.
        unreadable: skipped: unfinished, damaged, too long, or no events.
        newer: skipped: events of a format version that this library does not know.
    """

    events: int = 0
    unreadable: int = 0
    newer: int = 0


def read_events(path: str | os.PathLike[str], lines: LinesRead | None = None) -> Iterator[Event]:
    """The events of a log, file by file, in the order in which they were written.

    It may be read while others write: what is not finished yet counts as unreadable.

    Args:
        path: the folder of the log, or one file of it.
        lines: counts what was read.

    Raises:
        EventLogError: there is no such folder or file, or no log in it.
    """
    place = Path(path)
    if not place.exists():
        raise EventLogError(f"event log {str(place)!r} does not exist")
    files = segment_files(place) if place.is_dir() else [place]
    if not files:
        raise EventLogError(f"folder {str(place)!r} holds no event log: no file like 000001.jsonl")
    return _events(files, LinesRead() if lines is None else lines)


def _events(files: list[Path], lines: LinesRead) -> Iterator[Event]:
    for file in files:
        for line in _lines(file):
            try:
                event = EVENTS.validate_json(line)
            except ValidationError as error:
                if _is_newer(error):
                    lines.newer += 1
                else:
                    lines.unreadable += 1
                continue
            lines.events += 1
            yield event


def _is_newer(error: ValidationError) -> bool:
    """Whether a line was refused for its version, which is a later one."""
    versions = [found["input"] for found in error.errors() if found["loc"][-1:] == ("v",)]
    return any(isinstance(version, int) and version > FORMAT_VERSION for version in versions)


def _lines(file: Path) -> Iterator[bytes]:
    """The lines that are not blank; in place of one that is too long for an event, something that is none."""
    with file.open("rb") as stream:
        while line := stream.readline(MAX_LINE_BYTES + 1):
            if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = stream.readline(MAX_LINE_BYTES)
                line = b"too long"
            if not line.isspace():
                yield line
