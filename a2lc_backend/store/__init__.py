"""What the program remembers: the ledger (SQL) and artifacts (arrays by key)."""

from a2lc_backend.store.artifacts import ArtifactError, Artifacts, is_sound
from a2lc_backend.store.jobs import ALIVE_SECONDS
from a2lc_backend.store.ledger import Ledger
from a2lc_backend.store.records import (
    Audit,
    AuditResult,
    AutoCorrection,
    Correction,
    CorrectionKind,
    Event,
    Phase,
    Problem,
    Project,
    ProposalGroup,
    Query,
    Round,
    SeenAnnotation,
    Shard,
    StratumDecision,
    TaskState,
    Undone,
    Worker,
    open_round,
)

__all__ = [
    "ALIVE_SECONDS",
    "ArtifactError",
    "Artifacts",
    "Audit",
    "AuditResult",
    "AutoCorrection",
    "Correction",
    "CorrectionKind",
    "Event",
    "Ledger",
    "Phase",
    "Problem",
    "Project",
    "ProposalGroup",
    "Query",
    "Round",
    "SeenAnnotation",
    "Shard",
    "StratumDecision",
    "TaskState",
    "Undone",
    "Worker",
    "is_sound",
    "open_round",
]
