"""A real server of S3 on this machine: rclone serves the folders of a directory as buckets."""

import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.waits import LIMIT_S, wait_until

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


@dataclass
class S3Server:
    """Serves `directory`; whoever asks must sign with `KEY` and `SECRET`."""

    directory: Path
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> "S3Server":
        command = [str(Path(sys.executable).with_name("rclone")), "serve", "s3", str(self.directory)]
        command += [
            "--addr",
            f"127.0.0.1:{self.port}",
            "--auth-key",
            f"{KEY},{SECRET}",
            "--config",
            "/dev/null",
        ]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_until(self._answers, what="rclone answers")
        return self

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(LIMIT_S)

    def known_to(self, environment: pytest.MonkeyPatch) -> None:
        """Let this process, and those that it starts, find the server and sign for it; tries are few."""
        environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{self.port}")
        environment.setenv("AWS_ACCESS_KEY_ID", KEY)
        environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("AWS_MAX_ATTEMPTS", "1")
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False
