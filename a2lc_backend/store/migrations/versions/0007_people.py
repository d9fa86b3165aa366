"""People log in, answer one question a mask on the review page, and change a project's settings."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "people",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
    )
    op.create_table(
        "sessions",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("person", sa.Integer(), nullable=False),
        sa.Column("is_owner", sa.Integer(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
    )
    op.create_table(
        "review_projects",
        sa.Column("project_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("review_id", sa.Integer(), nullable=False),
        sa.Column("secret", sa.String(64), nullable=False),
    )
    op.create_table(
        "questions",
        sa.Column("project_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("round", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("task_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("region_id", sa.String(255), primary_key=True),
        sa.Column("review_task_id", sa.Integer(), nullable=False),
        sa.Column("wanted", sa.Integer(), nullable=False, server_default="1"),
    )
    op.create_index("ix_questions_review_task", "questions", ["project_id", "review_task_id"])
    op.create_table(
        "answers",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("region_id", sa.String(255), nullable=False),
        sa.Column("annotator", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("label", sa.Integer(), nullable=False),
        sa.Column("given_at", sa.Float(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False, server_default="0"),
        sa.Column("undone", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("sent", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("annotation_id", sa.Integer(), nullable=False, server_default="0"),
    )
    op.create_index("ix_answers_mask", "answers", ["project_id", "round", "task_id", "region_id"])
    op.create_index("ix_answers_sent", "answers", ["sent", "project_id"])
    op.create_table(
        "leases",
        sa.Column("project_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("round", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("task_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("region_id", sa.String(255), primary_key=True),
        sa.Column("annotator", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("until", sa.Float(), nullable=False),
    )
    op.create_table(
        "approved_masks",
        sa.Column("project_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("task_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("region_id", sa.String(255), primary_key=True),
        sa.Column("label", sa.Integer(), primary_key=True, autoincrement=False),
    )
    op.create_table(
        "setting_changes",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("changed_at", sa.Float(), nullable=False),
        sa.Column("person", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("before", sa.JSON(), nullable=False),
        sa.Column("after", sa.JSON(), nullable=False),
    )
    op.create_index("ix_setting_changes_project", "setting_changes", ["project_id", "id"])


def downgrade() -> None:
    for table in (
        "setting_changes",
        "approved_masks",
        "leases",
        "answers",
        "questions",
        "review_projects",
        "sessions",
        "people",
    ):
        op.drop_table(table)
