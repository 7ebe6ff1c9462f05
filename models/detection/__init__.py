"""What several networks have in common, read off names, shapes and values of tensors: no torch."""
