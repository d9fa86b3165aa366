"""The phases of a round, each idempotent and resumable, over any labelling platform."""
