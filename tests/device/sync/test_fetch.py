"""The fetcher by itself: encrypted connections, addresses that are none, and large files in several goes."""

import datetime
import errno
import hashlib
import ipaddress
import os
import random
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    LengthOrHashMismatchError,
    SlowRetrievalError,
)

from edge.device.sync.fetch import KEPT_FROM_BYTES, Fetcher
from tests.support.clock import SteppedClock
from tests.support.fleets import Mischief, StaticServer, sending, serving
from tests.support.nginx import running_nginx

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


LARGE = random.Random(18).randbytes(3 << 20)
HALF = len(LARGE) // 2
SHA256 = hashlib.sha256(LARGE).hexdigest()
NAME = f"targets/models/net/{SHA256}.net.onnx"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    directory = tmp_path / "published"
    path = directory / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(LARGE)
    return directory


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    return tmp_path / "parts"


def keeping(parts: Path) -> Fetcher:
    return Fetcher(60.0, 30.0, time.monotonic, parts)


def verified(fetcher: Fetcher, url: str) -> bytes:
    """Fetch as The Update Framework does: what is wrong is told while the file is open."""
    with fetcher.download_file(url, len(LARGE)) as file:
        data = file.read()
        if hashlib.sha256(data).hexdigest() != SHA256:
            raise LengthOrHashMismatchError("not what was signed")
        return data


def broken_off(server: StaticServer, parts: Path) -> None:
    """Fetch half of the file; the connection ends then."""
    server.mischief[".net.onnx"] = sending(LARGE[:HALF], declared=len(LARGE))
    with pytest.raises(DownloadError, match="too soon"):
        verified(keeping(parts), f"{server.url}/{NAME}")
    del server.mischief[".net.onnx"]
    assert (parts / SHA256).read_bytes() == LARGE[:HALF]


def test_what_broke_off_goes_on_where_it_stopped(published: Path, parts: Path, tmp_path: Path):
    with serving(published) as server, running_nginx(tmp_path / "nginx", published) as nginx:
        broken_off(server, parts)
        for url in (nginx.url, str(published)):
            fetching = keeping(parts)
            assert verified(fetching, f"{url}/{NAME}") == LARGE
            assert fetching.bytes == (len(LARGE) - HALF if url == nginx.url else 0), "what is whole is kept"
        assert [answer.status for answer in nginx.answers()] == [206]
        (parts / SHA256).write_bytes(LARGE[:HALF])
        fetching = keeping(parts)
        assert verified(fetching, f"{published}/{NAME}") == LARGE
        assert fetching.bytes == len(LARGE) - HALF


def test_a_server_that_knows_no_ranges_sends_all_of_it_again(published: Path, parts: Path):
    with serving(published) as server:
        broken_off(server, parts)
        assert verified(keeping(parts), f"{server.url}/{NAME}") == LARGE


def another_range(handler) -> None:
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 0-{HALF - 1}/{len(LARGE)}")
    handler.send_header("Content-Length", str(HALF))
    handler.end_headers()
    handler.wfile.write(LARGE[:HALF])


@pytest.mark.parametrize(
    ("answer", "error", "kept"),
    [
        pytest.param(another_range, DownloadError, True, id="another range"),
        pytest.param(sending(LARGE + b"x"), DownloadLengthMismatchError, False, id="more than was signed"),
        pytest.param(sending(b"<html>"), LengthOrHashMismatchError, False, id="something else"),
        pytest.param(sending(LARGE[:-1] + b"x"), LengthOrHashMismatchError, False, id="altered"),
    ],
)
def test_what_is_wrong_is_not_gone_on_with(
    published: Path, parts: Path, answer: Mischief, error: type[Exception], kept: bool
):
    with serving(published) as server:
        broken_off(server, parts)
        server.mischief[".net.onnx"] = answer
        with pytest.raises(error):
            verified(keeping(parts), f"{server.url}/{NAME}")
        assert (parts / SHA256).exists() is kept
        del server.mischief[".net.onnx"]
        assert verified(keeping(parts), f"{server.url}/{NAME}") == LARGE


@pytest.mark.parametrize("left", [b"x" * HALF, b"x" * len(LARGE), b"x" * (len(LARGE) + 1)])
def test_what_a_power_cut_left_is_verified_as_well(published: Path, parts: Path, left: bytes):
    parts.mkdir()
    (parts / SHA256).write_bytes(left)
    with pytest.raises(LengthOrHashMismatchError):
        verified(keeping(parts), f"{published}/{NAME}")
    assert verified(keeping(parts), f"{published}/{NAME}") == LARGE


def test_no_more_is_kept_than_one_synchronisation_asks_for(published: Path, parts: Path):
    (published / NAME).with_name(f"{'1' * 64}.a.onnx").write_bytes(LARGE)
    urls = [f"{published}/{NAME}", f"{(published / NAME).parent}/{'1' * 64}.a.onnx"]
    fetching = keeping(parts)
    for url in urls:
        verified(fetching, url)
    assert len(list(parts.iterdir())) == 2
    (parts / SHA256).unlink()
    verified(keeping(parts), urls[0])
    assert [path.name for path in parts.iterdir()] == [SHA256]
    fetching.finish()
    assert list(parts.iterdir()) == []
    with keeping(parts).download_file(urls[0], KEPT_FROM_BYTES - 1 + len(LARGE)) as file:
        assert file.read() == LARGE
    (published / "targets" / f"{'2' * 64}.small").write_bytes(b"small")
    assert keeping(parts).download_bytes(f"{published}/targets/{'2' * 64}.small", 5) == b"small"
    assert [path.name for path in parts.iterdir()] == [SHA256], "what is small is not kept"


def test_a_full_disk_is_not_left_full(published: Path, parts: Path):
    with (
        pytest.raises(OSError, match="No space left"),
        keeping(parts).download_file(f"{published}/{NAME}", len(LARGE)),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(parts.iterdir()) == []
