"""Addresses that the API names: relative to the root of this program, which a proxy may serve below a prefix."""

from __future__ import annotations

from urllib.parse import quote


def mask_picture(project_id: int, number: int, task_id: int, region_id: str) -> str:
    """Of the picture of a mask, as a round knew it."""
    return f"api/projects/{project_id}/rounds/{number}/masks/{task_id}/{quote(region_id, safe='')}.jpg"
