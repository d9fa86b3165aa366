"""What the program remembers: the ledger (SQL) and artifacts (arrays by key)."""

from a2lc_backend.store.artifacts import ArtifactError, Artifacts
from a2lc_backend.store.ledger import Ledger
from a2lc_backend.store.records import (
    AutoCorrection,
    Correction,
    CorrectionKind,
    Event,
    Phase,
    Problem,
    Project,
    Query,
    Round,
    SeenAnnotation,
    TaskState,
)

__all__ = [
    "ArtifactError",
    "Artifacts",
    "AutoCorrection",
    "Correction",
    "CorrectionKind",
    "Event",
    "Ledger",
    "Phase",
    "Problem",
    "Project",
    "Query",
    "Round",
    "SeenAnnotation",
    "TaskState",
]
