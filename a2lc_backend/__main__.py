"""`python -m a2lc_backend` is the `a2lc` command."""

from a2lc_backend.cli import main

main()
