"""A²LC for Label Studio: active and automated label correction for semantic segmentation."""

__version__ = "0.1.0"
