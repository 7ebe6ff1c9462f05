"""OCA: HAT's overlapping cross-attention as one op; see README.md beside this file."""

PLUGINS = ("oca",)
"""Names of its TensorRT plugins."""
