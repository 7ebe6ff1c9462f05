"""ENLA: ENLCN's efficient non-local attention as one op; see README.md beside this file."""

PLUGINS = ("enla_context", "enla_apply")
"""Names of its TensorRT plugins, one for each kernel."""
