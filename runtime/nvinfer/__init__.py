"""The TensorRT family: one code path, strongly typed, for TensorRT 10, 11 and TensorRT-RTX.

The libraries' Python modules are all but the same; ``library.py`` is the table of what differs.
Nothing here imports one: the targets hand theirs in.
"""
