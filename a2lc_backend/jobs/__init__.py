"""Rounds in the background: RQ on Redis where an address is set, else one thread of the process."""

from a2lc_backend.jobs.background import Jobs, NotPossibleError, NoWorkersError
from a2lc_backend.jobs.previews import Previews

__all__ = ["Jobs", "NoWorkersError", "NotPossibleError", "Previews"]
