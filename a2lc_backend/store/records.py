"""The rows of the ledger as the rest of the program sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from a2lc_backend.masks import IGNORE, Purpose, Source

RoundStatus = Literal["running", "paused", "cancelling", "cancelled", "done", "failed"]
ENDED: tuple[RoundStatus, ...] = ("done", "cancelled")
PhaseStatus = Literal["running", "done", "failed"]
ShardStatus = Literal["waiting", "running", "done", "failed"]
AnswerKind = Literal["label", "skip", "wrong"]
CorrectionKind = Literal["label", "shape", "new", "deleted"]


@dataclass(frozen=True)
class Project:
    """A Label Studio project that the program serves.

    Attributes:
        id: of the project in Label Studio.
        title: as shown there.
        classes: names, in the order of the label config; a class id is an index here.
        news: something was taken over from Label Studio that no round has begun with yet.
    """

    id: int
    title: str
    classes: tuple[str, ...]
    news: bool = False


@dataclass(frozen=True)
class Person:
    """Somebody with an account in Label Studio: their user id, name and e-mail address there."""

    id: int
    name: str
    email: str


@dataclass(frozen=True)
class Session:
    """Somebody who is logged in.

    Attributes:
        key: digest of the secret that the person's browser holds.
        person: user id.
        is_owner: of the access token that the program itself uses.
        expires: when it ends, seconds since the epoch.
    """

    key: str
    person: int
    is_owner: bool
    expires: float


@dataclass(frozen=True)
class TaskState:
    """What the program holds about one task.

    Attributes:
        task_id: of the task in Label Studio.
        image: address of the image as the task gives it.
        ready: its proposals are stored.
        mask_key: artifact key of the masks that hold now, or held before they were lost; empty before `ready`.
        error: why the task is left out, with the mend; empty when nothing is wrong.
        pixels: digest of the image that has been read; empty before `ready`.
    """

    task_id: int
    image: str
    ready: bool = False
    mask_key: str = ""
    error: str = ""
    pixels: str = ""


@dataclass(frozen=True)
class SeenAnnotation:
    """An annotation as it was when it was last collected."""

    annotation_id: int
    task_id: int
    updated_at: str


@dataclass(frozen=True)
class Correction:
    """One decision of a person about one mask.

    Attributes:
        annotation_id: the annotation it stands in.
        task_id: the image.
        region_id: the mask.
        kind: `label` (given or confirmed), `shape` (pixels edited too), `new` (drawn), `deleted`.
        label: class id; `IGNORE` for a deleted mask.
        before: class id the mask was shown with; `IGNORE` for a new or unlabelled mask.
        annotator: Label Studio's user id.
        made_at: when the annotation was last saved.
        round: the round that collected it.
        shape_key: artifact key of the pixels, for `shape` and `new`.
    """

    annotation_id: int
    task_id: int
    region_id: str
    kind: CorrectionKind
    label: int
    before: int
    annotator: int
    made_at: datetime
    round: int
    shape_key: str = ""

    @property
    def changes(self) -> bool:
        """Whether the person changed anything, rather than confirm what was shown."""
        return self.kind != "label" or self.label != self.before


@dataclass(frozen=True)
class AutoCorrection:
    """A label that changed in one round without a person: by the corrector, or back to the base label."""

    round: int
    task_id: int
    region_id: str
    before: int
    after: int
    confidence: float


@dataclass(frozen=True)
class Query:
    """A queued mask.

    Attributes:
        round: whose queue it is in.
        rank: 1 is looked at first.
        task_id: the image.
        region_id: the mask.
        label: class id held when it was queued.
        guess: class id of what it may be; `IGNORE` where nobody says, and for what is drawn for an audit.
        acquisition: higher for masks worth more.
        certainty: probability of the guess, 0 where it is not known.
        why: it is asked about, in words; see `rounds.queue.reasons`. Empty for what is drawn for an audit.
    """

    round: int
    rank: int
    task_id: int
    region_id: str
    label: int
    guess: int = IGNORE
    acquisition: float = 0.0
    certainty: float = 0.0
    why: str = ""


@dataclass(frozen=True)
class ReviewProject:
    """The second project in Label Studio, with one task a queued mask.

    Attributes:
        id: of that project in Label Studio.
        secret: signs the addresses of its pictures.
    """

    id: int
    secret: str


@dataclass(frozen=True, order=True)
class MaskKey:
    """A mask that a round queued: the round, the image's task, the mask's id there."""

    round: int
    task_id: int
    region_id: str


@dataclass(frozen=True)
class Answer:
    """What one person said of one queued mask, one key long.

    Attributes:
        id: made where the answer was given; whoever sends it twice sends the same.
        mask: what was asked about.
        annotator: user id in Label Studio; 0 for nobody in particular.
        kind: `label`, `skip`, or `wrong`: the mask itself has to be mended first.
        label: class id; `IGNORE` if none was given.
        given_at: seconds since the epoch.
        seconds: from seeing the mask to answering.
        undone: the person took it back.
        annotation_id: the annotation in Label Studio that holds it; 0 while none is known.
    """

    id: str
    mask: MaskKey
    annotator: int
    kind: AnswerKind
    label: int
    given_at: float
    seconds: float = 0.0
    undone: bool = False
    annotation_id: int = 0


@dataclass(frozen=True)
class Audit:
    """A mask that a round drew for one of its audits; see `audit`.

    Attributes:
        round: whose queue it went into.
        task_id: the image.
        region_id: the mask.
        purpose: `deciding`, `stating` or `random`.
        stratum: index into `audit.STRATA` of a deciding one, else −1.
        before: class id of the first label, `IGNORE` if none.
        after: class id proposed (deciding), applied (stating) or held (random).
    """

    round: int
    task_id: int
    region_id: str
    purpose: Purpose
    stratum: int
    before: int
    after: int


@dataclass(frozen=True)
class StratumDecision:
    """What a round did with the proposals of one stratum, and the evidence it had.

    Attributes:
        round: that decided.
        stratum: index into `audit.STRATA`.
        proposed: masks in it.
        taken: its proposals may be applied.
        audited: answers so far.
        right: of those, the proposed label is the answer.
        broken: of those, the label before is the answer.
    """

    round: int
    stratum: int
    proposed: int
    taken: bool
    audited: int
    right: int
    broken: int


@dataclass(frozen=True)
class AuditResult:
    """What a stating audit had found by the time of a round.

    Attributes:
        round: that counted.
        about: the round whose labels were audited; −1 for all rounds together.
        applied: labels of the corrector in that round; of all rounds, their sum.
        drawn: of those, drawn for the audit.
        audited: of those, answered.
        right: of those, the label is the answer.
        broken: of those, the first label is the answer.
    """

    round: int
    about: int
    applied: int
    drawn: int
    audited: int
    right: int
    broken: int


@dataclass(frozen=True)
class ProposalGroup:
    """Proposals of a round that replace one class by another.

    Attributes:
        round: that proposed them.
        before: class id, `IGNORE` for no label.
        after: class id.
        proposed: masks.
        ready: of those, in strata that are taken.
        applied: masks that are; less than `ready` where a person must approve the group and has not, or took labels
            back; more where a person approved what audits hold back.
    """

    round: int
    before: int
    after: int
    proposed: int
    ready: int
    applied: int


@dataclass(frozen=True)
class Event:
    """A webhook of Label Studio."""

    id: int
    action: str
    project_id: int


@dataclass(frozen=True)
class Problem:
    """Something that went wrong for one task, with the mend; task_id 0 stands for the whole project."""

    round: int
    phase: str
    task_id: int
    message: str


@dataclass(frozen=True)
class Phase:
    """How far a phase of a round is.

    Attributes:
        name: of the phase.
        status: running (also while the process is down), done or failed.
        done: units, images mostly.
        total: units there are; 0 while they are not known.
        started: seconds since the epoch.
        ended: seconds since the epoch, 0 while it runs.
        rate: units a second since it was begun or taken up again.
        eta: seconds left, 0 while that is not known.
        note: what it waits for, with the mend; empty while it gets on.
    """

    name: str
    status: PhaseStatus
    done: int = 0
    total: int = 0
    started: float = 0.0
    ended: float = 0.0
    rate: float = 0.0
    eta: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Shard:
    """A part of a phase that one worker does in one go.

    Attributes:
        project_id: of the project.
        round: number of the round.
        phase: name of the phase.
        index: of the shard in its phase.
        items: what it is about, as the phase planned it: JSON values.
        status: waiting, running, done or failed.
        done: units of it that are done.
        total: units in it; 0 while they are not known.
        owner: the process that has it.
        beat: when that process last said so, seconds since the epoch.
        attempts: how often it was begun and neither finished nor given back.
        error: why it failed, with the mend.
    """

    project_id: int
    round: int
    phase: str
    index: int
    items: tuple[Any, ...]
    status: ShardStatus = "waiting"
    done: int = 0
    total: int = 0
    owner: str = ""
    beat: float = 0.0
    attempts: int = 0
    error: str = ""


@dataclass(frozen=True)
class Worker:
    """A process that works on shards.

    Attributes:
        name: host, process id and a random part.
        queues: it listens on.
        started: seconds since the epoch.
        beat: when it last said that it lives, seconds since the epoch.
        doing: what it works on, empty while it waits.
    """

    name: str
    queues: tuple[str, ...]
    started: float
    beat: float
    doing: str = ""


@dataclass(frozen=True)
class SettingChange:
    """A setting of a project that was changed.

    Attributes:
        name: of the setting.
        before: value the project had of its own; None if it had none.
        after: value since then; None if what holds is the installation's.
        person: user id in Label Studio; 0 for a program or where nobody logs in, −1 where it was changed
            in Label Studio.
        changed_at: seconds since the epoch; of a change in Label Studio, when it was noticed.
    """

    name: str
    before: Any
    after: Any
    person: int
    changed_at: float


@dataclass(frozen=True)
class Undone:
    """An automatic correction that a person took back.

    Attributes:
        round: that had made it.
        task_id: the image.
        region_id: the mask.
        before: class id that holds again.
        after: class id that was taken back; no later round gives it to this mask by itself.
        source: of the label that holds again.
    """

    round: int
    task_id: int
    region_id: str
    before: int
    after: int
    source: Source


@dataclass(frozen=True)
class Round:
    """A round of a project.

    Attributes:
        project_id: of the project in Label Studio.
        number: 0 = masks and first labels; 1, 2, … follow human corrections.
        status: running (also while the process is down), paused, cancelling, cancelled, done or failed.
        version: model version in Label Studio; empty before the queue is ranked.
        budget: masks to queue.
        error: why it failed, with the mend.
        started: seconds since the epoch.
        ended: seconds since the epoch, 0 while it runs.
        summary: counts for the report, by name.
        settings: of the project, as they were when the round was begun.
    """

    project_id: int
    number: int
    status: RoundStatus
    version: str = ""
    budget: int = 0
    error: str = ""
    started: float = 0.0
    ended: float = 0.0
    summary: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to do for it; one that failed waits to be taken up again."""
        return self.status in ENDED


def open_round(rounds: Sequence[Round]) -> Round:
    """The round of a project that is not at its end, else the last one.

    It may be an older one: a finished round is opened again to be published without what was taken back.
    """
    return ([item for item in rounds if not item.has_ended] or list(rounds))[-1]
