"""The deployable half: ONNX to engine to pixels. Knows nothing of torch, export or models."""
