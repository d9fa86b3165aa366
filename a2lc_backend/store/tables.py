"""The ledger's tables; `migrations/` brings a database of any age to them."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

projects = Table(
    "projects",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("title", Text, nullable=False),
    Column("classes", JSON, nullable=False),
    Column("news", Integer, nullable=False, default=0, server_default="0"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("project_id", Integer, primary_key=True, autoincrement=False),
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("image", Text, nullable=False),
    Column("ready", Integer, nullable=False, default=0),
    Column("mask_key", Text, nullable=False, default=""),
    Column("error", Text, nullable=False, default=""),
    Column("pixels", String(32), nullable=False, default="", server_default=""),
)

rounds = Table(
    "rounds",
    metadata,
    Column("project_id", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("status", String(16), nullable=False),
    Column("version", String(64), nullable=False, default=""),
    Column("budget", Integer, nullable=False, default=0),
    Column("error", Text, nullable=False, default=""),
    Column("started", Float, nullable=False, default=0.0),
    Column("ended", Float, nullable=False, default=0.0),
    Column("summary", JSON, nullable=False, default=dict),
    Column("settings", JSON, nullable=False, default=dict),
)

phases = Table(
    "phases",
    metadata,
    Column("project_id", Integer, primary_key=True, autoincrement=False),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("name", String(16), primary_key=True),
    Column("status", String(16), nullable=False),
    Column("done", Integer, nullable=False, default=0),
    Column("total", Integer, nullable=False, default=0),
    Column("started", Float, nullable=False, default=0.0),
    Column("ended", Float, nullable=False, default=0.0),
    Column("rate", Float, nullable=False, default=0.0),
    Column("eta", Float, nullable=False, default=0.0),
    Column("note", Text, nullable=False, default=""),
)

shards = Table(
    "shards",
    metadata,
    Column("project_id", Integer, primary_key=True, autoincrement=False),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("phase", String(16), primary_key=True),
    Column("index", Integer, primary_key=True, autoincrement=False),
    Column("items", JSON, nullable=False),
    Column("status", String(16), nullable=False),
    Column("done", Integer, nullable=False, default=0),
    Column("total", Integer, nullable=False, default=0),
    Column("owner", String(64), nullable=False, default=""),
    Column("beat", Float, nullable=False, default=0.0),
    Column("attempts", Integer, nullable=False, default=0),
    Column("error", Text, nullable=False, default=""),
)

workers = Table(
    "workers",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("queues", JSON, nullable=False),
    Column("started", Float, nullable=False),
    Column("beat", Float, nullable=False),
    Column("doing", Text, nullable=False, default=""),
)

undone = Table(
    "undone",
    metadata,
    Column("project_id", Integer, primary_key=True, autoincrement=False),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("region_id", String(255), primary_key=True),
    Column("before", Integer, nullable=False),
    Column("after", Integer, nullable=False),
    Column("source", String(16), nullable=False),
)

seen_annotations = Table(
    "annotations",
    metadata,
    Column("project_id", Integer, primary_key=True, autoincrement=False),
    Column("annotation_id", Integer, primary_key=True, autoincrement=False),
    Column("task_id", Integer, nullable=False),
    Column("updated_at", String(40), nullable=False),
)

corrections = Table(
    "corrections",
    metadata,
    Column("project_id", Integer, primary_key=True, autoincrement=False),
    Column("annotation_id", Integer, primary_key=True, autoincrement=False),
    Column("region_id", String(255), primary_key=True),
    Column("task_id", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("label", Integer, nullable=False),
    Column("before", Integer, nullable=False),
    Column("annotator", Integer, nullable=False),
    Column("made_at", String(40), nullable=False),
    Column("round", Integer, nullable=False),
    Column("shape_key", Text, nullable=False, default=""),
    Index("ix_corrections_task", "project_id", "task_id"),
)

auto_corrections = Table(
    "auto_corrections",
    metadata,
    Column("project_id", Integer, primary_key=True, autoincrement=False),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("region_id", String(255), primary_key=True),
    Column("before", Integer, nullable=False),
    Column("after", Integer, nullable=False),
    Column("confidence", Float, nullable=False),
)

queries = Table(
    "queries",
    metadata,
    Column("project_id", Integer, primary_key=True, autoincrement=False),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("rank", Integer, primary_key=True, autoincrement=False),
    Column("task_id", Integer, nullable=False),
    Column("region_id", String(255), nullable=False),
    Column("label", Integer, nullable=False),
    Column("guess", Integer, nullable=False),
    Column("acquisition", Float, nullable=False),
    Column("certainty", Float, nullable=False, default=0.0, server_default="0"),
    Column("why", String(32), nullable=False, default="", server_default=""),
    Index("ix_queries_task", "project_id", "round", "task_id"),
)

audits = Table(
    "audits",
    metadata,
    Column("project_id", Integer, primary_key=True, autoincrement=False),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("region_id", String(255), primary_key=True),
    Column("purpose", String(16), nullable=False),
    Column("stratum", Integer, nullable=False),
    Column("before", Integer, nullable=False),
    Column("after", Integer, nullable=False),
)

strata = Table(
    "strata",
    metadata,
    Column("project_id", Integer, primary_key=True, autoincrement=False),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("stratum", Integer, primary_key=True, autoincrement=False),
    Column("proposed", Integer, nullable=False),
    Column("taken", Integer, nullable=False),
    Column("audited", Integer, nullable=False),
    Column("right", Integer, nullable=False),
    Column("broken", Integer, nullable=False),
)

audit_results = Table(
    "audit_results",
    metadata,
    Column("project_id", Integer, primary_key=True, autoincrement=False),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("about", Integer, primary_key=True, autoincrement=False),
    Column("applied", Integer, nullable=False),
    Column("drawn", Integer, nullable=False),
    Column("audited", Integer, nullable=False),
    Column("right", Integer, nullable=False),
    Column("broken", Integer, nullable=False),
)

proposal_groups = Table(
    "proposal_groups",
    metadata,
    Column("project_id", Integer, primary_key=True, autoincrement=False),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("before", Integer, primary_key=True, autoincrement=False),
    Column("after", Integer, primary_key=True, autoincrement=False),
    Column("proposed", Integer, nullable=False),
    Column("ready", Integer, nullable=False),
    Column("applied", Integer, nullable=False),
)

approvals = Table(
    "approvals",
    metadata,
    Column("project_id", Integer, primary_key=True, autoincrement=False),
    Column("before", Integer, primary_key=True, autoincrement=False),
    Column("after", Integer, primary_key=True, autoincrement=False),
)

approved_masks = Table(
    "approved_masks",
    metadata,
    Column("project_id", Integer, primary_key=True, autoincrement=False),
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("region_id", String(255), primary_key=True),
    Column("label", Integer, primary_key=True, autoincrement=False),
)

problems = Table(
    "problems",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("project_id", Integer, nullable=False),
    Column("round", Integer, nullable=False),
    Column("phase", String(16), nullable=False),
    Column("task_id", Integer, nullable=False),
    Column("message", Text, nullable=False),
    Index("ix_problems_task", "project_id", "round", "task_id"),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("received", Float, nullable=False),
    Column("action", String(64), nullable=False),
    Column("project_id", Integer, nullable=False),
    Column("handled", Integer, nullable=False, default=0),
    Index("ix_events_handled", "handled"),
)

locks = Table(
    "locks",
    metadata,
    Column("project_id", Integer, primary_key=True, autoincrement=False),
    Column("owner", String(64), nullable=False),
    Column("beat", Float, nullable=False),
)

embeddings = Table(
    "embeddings",
    metadata,
    Column("key", String(160), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("used", Float, nullable=False),
    Index("ix_embeddings_used", "used"),
)

people = Table(
    "people",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("email", Text, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("person", Integer, nullable=False),
    Column("is_owner", Integer, nullable=False),
    Column("expires", Float, nullable=False),
)

review_projects = Table(
    "review_projects",
    metadata,
    Column("project_id", Integer, primary_key=True, autoincrement=False),
    Column("review_id", Integer, nullable=False),
    Column("secret", String(64), nullable=False),
)

questions = Table(
    "questions",
    metadata,
    Column("project_id", Integer, primary_key=True, autoincrement=False),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("region_id", String(255), primary_key=True),
    Column("review_task_id", Integer, nullable=False),
    Column("wanted", Integer, nullable=False, default=1, server_default="1"),
    Index("ix_questions_review_task", "project_id", "review_task_id"),
)

answers = Table(
    "answers",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("project_id", Integer, nullable=False),
    Column("round", Integer, nullable=False),
    Column("task_id", Integer, nullable=False),
    Column("region_id", String(255), nullable=False),
    Column("annotator", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("label", Integer, nullable=False),
    Column("given_at", Float, nullable=False),
    Column("seconds", Float, nullable=False, default=0.0, server_default="0"),
    Column("undone", Integer, nullable=False, default=0, server_default="0"),
    Column("sent", Integer, nullable=False, default=0, server_default="0"),
    Column("annotation_id", Integer, nullable=False, default=0, server_default="0"),
    Index("ix_answers_mask", "project_id", "round", "task_id", "region_id"),
    Index("ix_answers_sent", "sent", "project_id"),
)

leases = Table(
    "leases",
    metadata,
    Column("project_id", Integer, primary_key=True, autoincrement=False),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("region_id", String(255), primary_key=True),
    Column("annotator", Integer, primary_key=True, autoincrement=False),
    Column("until", Float, nullable=False),
)

setting_changes = Table(
    "setting_changes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("project_id", Integer, nullable=False),
    Column("changed_at", Float, nullable=False),
    Column("person", Integer, nullable=False),
    Column("name", String(32), nullable=False),
    Column("before", JSON, nullable=False),
    Column("after", JSON, nullable=False),
    Index("ix_setting_changes_project", "project_id", "id"),
)
