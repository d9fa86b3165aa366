"""A queue tells why each mask is in it, and how sure the guess is."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("queries", sa.Column("certainty", sa.Float(), nullable=False, server_default="0"))
    op.add_column("queries", sa.Column("why", sa.String(32), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("queries", "why")
    op.drop_column("queries", "certainty")
