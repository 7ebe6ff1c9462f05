"""Torch network to verified ONNX: trace, graph passes, precision, uint8 pixels, check."""
