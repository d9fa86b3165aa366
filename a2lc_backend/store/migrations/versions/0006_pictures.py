"""The content of each picture is known again under another address, and news waits for the round that takes it up."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("tasks", sa.Column("pixels", sa.String(32), nullable=False, server_default=""))
    op.add_column("projects", sa.Column("news", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("projects", "news")
    op.drop_column("tasks", "pixels")
