"""Problems are looked up by task, so that ten thousand of them are noted as fast each as the first."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.drop_index("ix_problems_round", "problems")
    op.create_index("ix_problems_task", "problems", ["project_id", "round", "task_id"])


def downgrade() -> None:
    op.drop_index("ix_problems_task", "problems")
    op.create_index("ix_problems_round", "problems", ["project_id", "round"])
