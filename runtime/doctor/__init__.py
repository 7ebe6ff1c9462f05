"""What this machine can do, and what is missing for more, each with the line that brings it."""
