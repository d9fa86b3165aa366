"""What is known of stored image embeddings, so that the least recently used go first when their space is full."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "embeddings",
        sa.Column("key", sa.String(160), primary_key=True),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.Float(), nullable=False),
    )
    op.create_index("ix_embeddings_used", "embeddings", ["used"])


def downgrade() -> None:
    op.drop_table("embeddings")
