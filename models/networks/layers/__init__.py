"""Layers that several published networks have in common, with their published tensor names."""
