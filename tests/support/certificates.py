"""Certificates for a test, made by the openssl program: an authority, a broker's, a device's."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Authority:
    """A certificate authority in a directory of its own."""

    directory: Path

    @property
    def file(self) -> Path:
        return self.directory / "ca.pem"

    def make(self) -> "Authority":
        self.directory.mkdir(parents=True)
        _openssl(
            "req", "-x509", *_new_key(self.directory / "ca.key"), "-out", str(self.file), "-days", "2",
            "-subj", "/CN=test authority", "-addext", "basicConstraints=critical,CA:TRUE",
        )  # fmt: skip
        return self

    def sign(self, name: str, common_name: str, alternative: str = "", days: int = 2) -> tuple[Path, Path]:
        """Return certificate and key for `common_name`, good for so many days from now."""
        key, request, certificate = (self.directory / f"{name}.{end}" for end in ("key", "csr", "pem"))
        escaped = common_name.replace("/", "\\/")
        _openssl("req", *_new_key(key), "-out", str(request), "-subj", f"/CN={escaped}")
        extensions = self.directory / f"{name}.ext"
        extensions.write_text(
            f"subjectAltName={alternative}\n" if alternative else "basicConstraints=CA:FALSE\n"
        )
        _openssl(
            "x509", "-req", "-in", str(request), "-out", str(certificate), "-days", str(days),
            "-CA", str(self.file), "-CAkey", str(self.directory / "ca.key"), "-CAcreateserial",
            "-extfile", str(extensions),
        )  # fmt: skip
        return certificate, key


def _new_key(path: Path) -> tuple[str, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(path))


def _openssl(*arguments: str) -> None:
    made = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
