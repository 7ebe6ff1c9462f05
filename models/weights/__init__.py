"""Weights: reading checkpoints that nobody vouches for, finding and fetching them."""
