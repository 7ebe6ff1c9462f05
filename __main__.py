"""``python -m srdeploy``."""

from .cli import main

main(prog_name="srdeploy")
