"""Entry point of `edge` and `python -m edge`."""

import os
import signal


def main() -> None:
    """Run the command line; until it is loaded, which takes a moment, Ctrl-C ends it at once and quietly."""
    signal.signal(signal.SIGINT, lambda signum, _: os._exit(128 + signum))
    from edge.cli.app import command_line

    command_line()


if __name__ == "__main__":
    main()
