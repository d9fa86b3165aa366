"""The gateway to Label Studio over its SDK."""

from a2lc_backend.label_studio.client import (
    LabelStudioError,
    LabelStudioUnauthorizedError,
    LabelStudioUnreachableError,
    close_client,
    open_client,
)
from a2lc_backend.label_studio.connect import Attached, attach
from a2lc_backend.label_studio.follow_ups import FOLLOWS
from a2lc_backend.label_studio.project import LabelStudioProject
from a2lc_backend.label_studio.publish import VIEW_TITLE

__all__ = [
    "FOLLOWS",
    "VIEW_TITLE",
    "Attached",
    "LabelStudioError",
    "LabelStudioProject",
    "LabelStudioUnauthorizedError",
    "LabelStudioUnreachableError",
    "attach",
    "close_client",
    "open_client",
]
