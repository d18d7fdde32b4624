"""The fetcher by itself: encrypted connections, and addresses that are none."""

import datetime
import ipaddress
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError

from edge.device.sync.fetch import Fetcher
from tests.support.clock import SteppedClock
from tests.support.fleets import serving

CONTENT = b"published" * 1000


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "a file.json").write_bytes(CONTENT)
    return folder


def certificate(path: Path) -> Path:
    """Write a key and a certificate of its own for 127.0.0.1 into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fleet")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + made.public_bytes(pem)
    )
    return path


def fetcher(timeout_s: float = 10.0) -> Fetcher:
    return Fetcher(timeout_s, 5.0, time.monotonic)


def test_a_server_and_a_directory_give_the_same_bytes(directory: Path):
    with serving(directory) as server:
        assert fetcher().download_bytes(f"{server.url}/a%20file.json", 10_000) == CONTENT
    assert fetcher().download_bytes(f"{directory.as_uri()}/a%20file.json", 10_000) == CONTENT
    assert fetcher().download_bytes(f"{directory}/a file.json", 10_000) == CONTENT


def test_an_encrypted_connection_is_made_to_a_trusted_server_only(directory: Path, monkeypatch):
    pem = certificate(directory.parent / "server.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with serving(directory) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        url = f"https://127.0.0.1:{server.server_address[1]}/a%20file.json"
        with pytest.raises(DownloadError, match="certificate verify failed"):
            fetcher().download_bytes(url, 10_000)
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        assert fetcher().download_bytes(url, 10_000) == CONTENT


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("ftp://127.0.0.1/a", id="other scheme"),
        pytest.param("http:///a", id="no host"),
        pytest.param("http://127.0.0.1:99999/a", id="no port"),
        pytest.param("http://127.0.0.1:1/a", id="nobody listens"),
        pytest.param("http://[::1/a", id="no address"),
        pytest.param("http://127.0.0.1:1/a b\r\nX: y", id="more than an address"),
    ],
)
def test_an_address_that_is_none_is_a_download_error(url: str):
    with pytest.raises(DownloadError):
        fetcher().download_bytes(url, 100)


def test_what_is_not_there_is_told_apart_from_what_cannot_be_had(directory: Path):
    with pytest.raises(DownloadHTTPError) as caught:
        fetcher().download_bytes(str(directory / "none"), 100)
    assert caught.value.status_code == 404
    with pytest.raises(DownloadError) as caught:
        fetcher().download_bytes(str(directory), 100)
    assert not isinstance(caught.value, DownloadHTTPError)


def test_the_time_is_for_all_files_together(directory: Path):
    clock = SteppedClock()
    fetching = Fetcher(10.0, 5.0, clock.monotonic)
    fetching.download_bytes(f"{directory}/a file.json", 10_000)
    clock.now_s = 11.0
    with pytest.raises(SlowRetrievalError):
        fetching.download_bytes(f"{directory}/a file.json", 10_000)
