"""Quality: metrics, data sets, and the drift of an engine against its reference."""
