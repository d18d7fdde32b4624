"""Entry point of `edge` and `python -m edge`: one clear line for every error, and the exit codes."""

import sys
from io import TextIOWrapper

from edge.core.errors import EX_CONFIG, ConfigError, EdgeError, ModelError
from edge.core.process import end_with_parent
from edge.core.text import printable

EX_FAILURE = 1


def main() -> None:
    """Run the command line."""
    end_with_parent()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a label that the terminal has no letters for
    from edge.cli.app import app

    try:
        app()
    except (ConfigError, ModelError) as error:
        print(f"edge: {printable(str(error))}", file=sys.stderr)
        sys.exit(EX_CONFIG)
    except EdgeError as error:
        print(f"edge: {printable(str(error))}", file=sys.stderr)
        sys.exit(EX_FAILURE)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone, `edge replay ... | head`
        sys.exit(EX_FAILURE)
    except OSError as error:
        print(f"edge: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(EX_FAILURE)


if __name__ == "__main__":
    main()
