"""srdeploy: deploy super-resolution networks at a known quality."""

__version__ = "0.1.0"
