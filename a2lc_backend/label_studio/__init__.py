"""The gateway to Label Studio over its SDK."""

from a2lc_backend.label_studio.answers import deliver_answers, hear_answers
from a2lc_backend.label_studio.client import (
    LabelStudioError,
    LabelStudioUnauthorizedError,
    LabelStudioUnreachableError,
    close_client,
    connected,
    open_client,
)
from a2lc_backend.label_studio.connect import Attached, attach
from a2lc_backend.label_studio.follow_ups import FOLLOWS
from a2lc_backend.label_studio.originals import Original, Originals
from a2lc_backend.label_studio.project import LabelStudioProject
from a2lc_backend.label_studio.publish import rest_of
from a2lc_backend.label_studio.pulse import Pulse
from a2lc_backend.label_studio.views import VIEW_TITLE

__all__ = [
    "FOLLOWS",
    "VIEW_TITLE",
    "Attached",
    "LabelStudioError",
    "LabelStudioProject",
    "LabelStudioUnauthorizedError",
    "LabelStudioUnreachableError",
    "Original",
    "Originals",
    "Pulse",
    "attach",
    "close_client",
    "connected",
    "deliver_answers",
    "hear_answers",
    "open_client",
    "rest_of",
]
