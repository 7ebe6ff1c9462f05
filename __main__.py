"""``python -m srdeploy``, and the program ``srdeploy``."""

import signal


def main() -> None:
    """Run the command line."""
    # until a command handles it, Ctrl-C ends the program without a traceback of its imports
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .cli import main as run

    run(prog_name="srdeploy")


if __name__ == "__main__":
    main()
