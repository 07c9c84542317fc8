"""The base of what is stored at the collection level."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Stored(BaseModel):
    """Base of what is stored at the collection level, and read back as untrusted input."""

    model_config = ConfigDict(frozen=True, extra="ignore", str_max_length=1024)
