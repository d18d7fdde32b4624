"""A door's view of a published directory, as the conformance suite of The Update Framework calls it.

Not part of `make test`: the suite is fetched by who runs it (tests/README.md, "Conformance"). The commands
and their options are the suite's own (CLIENT-CLI.md there).
"""

import argparse
import hashlib
import sys
import time
from pathlib import Path

from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import TargetFile

from edge.core.errors import GalleryError
from edge.device.sync.fetch import Fetcher
from edge.device.sync.trust import TrustedDirectory

TRUSTED_ROOT = "trusted_root.json"
"""What trust begins with, kept beside the metadata."""


def opened(arguments: argparse.Namespace) -> TrustedDirectory:
    """Look at the published directory; `--metadata-url` ends in `metadata/`, as a door's does."""
    directory = arguments.metadata_dir.parent
    fetcher = Fetcher(60.0, 30.0, time.monotonic)
    url = arguments.metadata_url.rstrip("/").removesuffix("/metadata")
    return TrustedDirectory(url, directory, (directory / TRUSTED_ROOT).read_bytes(), fetcher)


def init(arguments: argparse.Namespace) -> None:
    """Keep the root that trust begins with."""
    root = arguments.trusted_root.read_bytes()
    (arguments.metadata_dir.parent / TRUSTED_ROOT).write_bytes(root)
    (arguments.metadata_dir / "root.json").write_bytes(root)


def refresh(arguments: argparse.Namespace) -> None:
    """Bring the metadata up to date."""
    opened(arguments)._updater.refresh()


def download(arguments: argparse.Namespace) -> None:
    """Bring targets, in order; what is there already and is what was signed is not fetched again."""
    published = opened(arguments)
    for name in arguments.target_name:
        target = published.find(name)
        if target is None:
            raise GalleryError(f"{name}: nobody who may has signed it")
        path = arguments.target_dir / hashlib.sha256(name.encode()).hexdigest()
        if not (path.exists() and is_signed(path.read_bytes(), target)):
            path.write_bytes(published.fetch(target))


def is_signed(data: bytes, target: TargetFile) -> bool:
    """Whether bytes are those that were signed."""
    try:
        target.verify_length_and_hashes(data)
    except LengthOrHashMismatchError:
        return False
    return True


def main() -> int:
    """Do one command; errors of a door are exit code 1."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--metadata-url")
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--target-name", action="append")
    parser.add_argument("--target-dir", type=Path)
    parser.add_argument("--target-base-url")
    commands = parser.add_subparsers(required=True)
    starting = commands.add_parser("init")
    starting.add_argument("trusted_root", type=Path)
    starting.set_defaults(command=init)
    commands.add_parser("refresh").set_defaults(command=refresh)
    commands.add_parser("download").set_defaults(command=download)
    arguments = parser.parse_args()
    try:
        arguments.command(arguments)
    except GalleryError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
