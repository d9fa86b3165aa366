"""A²LC for Label Studio: active and automated label correction for semantic segmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from a2lc_backend.export import load_labels

__all__ = ["__version__", "load_labels"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """What takes time to import comes when it is asked for."""
    if name == "load_labels":
        from a2lc_backend.export import load_labels  # noqa: PLC0415

        return load_labels
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
