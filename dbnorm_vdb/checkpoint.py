"""How far a fit has come: bytes that a store keeps, so that a fit of the same work can go on where a dead one stopped.

Read back as untrusted input: what is not a whole checkpoint counts as none.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.statistics import ItemId

USABLE_FOR = timedelta(days=1)
"""Later than that, too much of the collection may have changed: the fit starts afresh."""


_DIGEST = 32


@dataclass(frozen=True)
class Checkpoint:
    """The state of a fit after a page whose items are all written.

    Attributes:
        number: the how-manieth of its fit, from 1.
        after: the id of the last item done; pages come in the order of ids.
        done: how many items are.
        sinkhorn: sample size and changes of the weights that were learned.
        state: of the `GalleryFit`.
    """

    number: int
    after: ItemId
    done: int
    state: Mapping[str, npt.NDArray[Any]]
    sinkhorn: tuple[int, list[float]] | None = None

    def dump(self) -> bytes:
        """As a compressed archive behind its SHA-256."""
        after = self.after if isinstance(self.after, int) else str(self.after)
        head = {
            "number": self.number,
            "after": after,
            "done": self.done,
            "sinkhorn": self.sinkhorn,
            "at": datetime.now(timezone.utc).isoformat(),
        }
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {**self.state, "head": np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)}
        np.savez_compressed(buffer, **arrays)
        archive = buffer.getvalue()
        return hashlib.sha256(archive).digest() + archive

    @classmethod
    def load(cls, data: bytes | None) -> Checkpoint | None:
        """Read it back; None if there is none, or none that can be used."""
        if not data or hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
            return None
        try:
            with np.load(io.BytesIO(data[_DIGEST:]), allow_pickle=False) as archive:
                state = {name: archive[name] for name in archive.files}
            head = json.loads(state.pop("head").tobytes())
            if datetime.now(timezone.utc) - datetime.fromisoformat(head["at"]) > USABLE_FOR:
                return None
            sinkhorn = head["sinkhorn"]
            return cls(
                number=int(head["number"]),
                after=head["after"],
                done=int(head["done"]),
                state=state,
                sinkhorn=None if sinkhorn is None else (int(sinkhorn[0]), [float(change) for change in sinkhorn[1]]),
            )
        except (ValueError, KeyError, TypeError, zipfile.BadZipFile):  # of another version of this library
            return None
