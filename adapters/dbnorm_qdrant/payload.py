"""Our key in the payload: how it is written, read, asked for beside the user's keys, and kept out of results."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import numpy as np
from pydantic import TypeAdapter, ValidationError
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import GrpcToRest

from dbnorm_vdb.statistics import BANKS, COLUMNS, ItemId, ItemStatistics, StoredItem
from dbnorm_vdb.store import KEY

_GENERATION = re.compile(r"g\d+")
_ITEMS = TypeAdapter(list[StoredItem])
_FIELDS = frozenset(StoredItem.__annotations__)


def generation_key(generation: int) -> str:
    """The key inside our payload object that holds one generation's values."""
    return f"g{generation}"


def is_ours(value: object) -> bool:
    """Whether what stands under our key is of our making, and not the user's own."""
    return isinstance(value, Mapping) and all(_GENERATION.fullmatch(str(key)) for key in value)


def is_written_by_us(value: object) -> bool:
    """The same, strictly: for where no statistics of the collection say that there should be any."""
    if not isinstance(value, Mapping) or not value or not is_ours(value):
        return False
    items = [*value.values()]
    if not all(isinstance(item, Mapping) and item and _FIELDS.issuperset(item) for item in items):
        return False
    try:
        _ITEMS.validate_python(items)
    except ValidationError:
        return False
    return True


def item_payloads(items: ItemStatistics) -> list[dict[str, Any]]:
    """The values of n items, as `StoredItem` reads them; nine digits keep all of float32."""
    payloads: list[dict[str, Any]] = [{} for _ in range(len(items))]
    for name in COLUMNS:
        for payload, value in zip(payloads, items.bias(name).tolist(), strict=True):
            if value == value:  # not NaN
                payload[name] = float(f"{value:.9g}")
    for bank in BANKS:
        for row in np.flatnonzero(items.activated(bank)).tolist():
            payloads[row].setdefault("activated", []).append(bank)
    return payloads


def item_statistics(payloads: Sequence[Mapping[str, Any] | None], generation: int) -> tuple[ItemStatistics, bool]:
    """Columns from payloads, and whether some item has values of another generation but none of this one.

    Payloads are untrusted: what is not as we write it counts as absent.
    """
    items = ItemStatistics.unknown(len(payloads))
    wanted, outdated = generation_key(generation), False
    stored: dict[int, object] = {}
    for row, payload in enumerate(payloads):
        ours = payload.get(KEY) if payload else None
        if not isinstance(ours, (dict, Mapping)):  # dict first: soon told
            continue
        if wanted in ours:
            stored[row] = ours[wanted]
        else:
            outdated = outdated or bool(ours)
    try:
        items.put([*stored], _ITEMS.validate_python([*stored.values()]))
    except ValidationError:  # some are not: take the others
        for row, value in stored.items():
            with contextlib.suppress(ValidationError):
                items.put([row], _ITEMS.validate_python([value]))
    return items, outdated


def rest_selector(with_payload: Any) -> Any:
    """The caller's payload selector in its REST form."""
    if isinstance(with_payload, grpc.WithPayloadSelector):
        return GrpcToRest.convert_with_payload_selector(with_payload)
    return with_payload


def with_our_key(with_payload: Any) -> Any:
    """The payload selector that returns what the caller asked for, and our key. The client refuses what is none."""
    if with_payload is True:
        return True
    if _nothing(with_payload):
        return [KEY]
    if isinstance(with_payload, models.PayloadSelectorExclude):
        kept = [key for key in with_payload.exclude if key.split(".")[0] != KEY]
        return models.PayloadSelectorExclude(exclude=kept) if kept else True
    asked = with_payload.include if isinstance(with_payload, models.PayloadSelectorInclude) else with_payload
    return [*asked, KEY] if isinstance(asked, (list, tuple)) else asked


def without_our_key(payload: Mapping[str, Any] | None, with_payload: Any) -> dict[str, Any] | None:
    """The payload as the caller asked for it. A new dict: the client may hand out its own."""
    if payload is None or _nothing(with_payload):
        return None
    return {key: value for key, value in payload.items() if key != KEY or not is_ours(value)}


def _nothing(with_payload: Any) -> bool:
    """Whether no payload was asked for, which is another thing than one without keys."""
    return not with_payload and not isinstance(with_payload, (list, tuple))


def as_structs(points: Any) -> list[models.PointStruct] | None:
    """What `upsert` takes, as one list of points in REST form; None if the client will have to say what is wrong."""
    if not isinstance(points, models.Batch):
        if not isinstance(points, Sequence) or not all(
            isinstance(p, (models.PointStruct, grpc.PointStruct)) for p in points
        ):
            return None
        return [GrpcToRest.convert_point_struct(p) if isinstance(p, grpc.PointStruct) else p for p in points]
    columns = [*points.vectors.values()] if isinstance(points.vectors, dict) else [points.vectors]
    if any(len(column) != len(points.ids) for column in [*columns, points.payloads or points.ids]):
        return None
    payloads: list[Any] = [*points.payloads] if points.payloads else [None for _ in points.ids]
    if isinstance(points.vectors, dict):
        names = list(points.vectors)
        rows: list[Any] = [dict(zip(names, row, strict=True)) for row in zip(*points.vectors.values(), strict=True)]
    else:
        rows = list(points.vectors)
    return [
        models.PointStruct(id=item, vector=vector, payload=payload)
        for item, vector, payload in zip(points.ids, rows, payloads, strict=True)
    ]


def vector_of(point: models.PointStruct, name: str) -> Any:
    """The point's vector of that name; "" is the unnamed one."""
    return point.vector.get(name) if isinstance(point.vector, dict) else (None if name else point.vector)


def id_as_stored(item: ItemId) -> ItemId:
    """A point's id as the engine returns it; what is none is for the client to refuse."""
    if not isinstance(item, int):
        with contextlib.suppress(ValueError):
            return str(UUID(str(item)))
    return item
