"""What requests may name things by: numbers that the store can hold, texts that it can find."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Number = Annotated[int, Field(ge=0, lt=2**31)]
"""Id of a project or task, number of a round."""

RegionId = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""Name of a mask; see `regions.is_region_id`."""

ClassId = Annotated[int, Field(ge=0, le=255)]
