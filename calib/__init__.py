"""Calibration: pictures, observed ranges, what each layer costs in int8, the int8 graph."""
