"""Certificates for the broker and its devices, by an authority of the operator's own. Talks to no broker.

    keys/broker-ca.key, broker-ca.crt      the authority, made at first use; keep the key off any network
    <out>/ca.crt, device.crt, device.key   what one device needs; its name is its user at the broker
    <out>/ca.crt, <user>.crt, <user>.key   what another user needs, such as `operator`

A device's certificate says `<site>/<device>`, another user's its name; with `use_identity_as_username` the
broker's access rules know it by that.
"""

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge.core import files
from edge.core.errors import FleetError

CA_DAYS = 3650
SLACK = timedelta(hours=1)
"""How far a certificate begins before now: clocks of devices that have just started are behind."""

MAX_PEM_BYTES = 16 * 1024


class Authority:
    """The authority in a directory of keys, made where there is none. `now` is aware."""

    def __init__(self, directory: Path, now: datetime) -> None:
        self._now = now
        key_path, self._path = directory / "broker-ca.key", directory / "broker-ca.crt"
        pem, own = (files.read_bounded(path, MAX_PEM_BYTES) for path in (key_path, self._path))
        if pem is None and own is None:
            self._make(key_path)
            return
        if pem is None or own is None:
            raise FleetError(f"{directory}: broker-ca.key and broker-ca.crt belong together; one is missing")
        files.check_private(key_path)
        try:
            key = load_pem_private_key(pem, None)
            self.certificate = x509.load_pem_x509_certificate(own)
        except (ValueError, TypeError):
            raise FleetError(f"{directory}: the broker's authority is damaged; restore it") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise FleetError(f"{key_path}: this is no key of a broker's authority")
        self._key = key

    def issue(
        self, name: str, directory: Path, file: str, *, days: int, hosts: Sequence[str] = ()
    ) -> datetime:
        """Write ca.crt, <file>.crt and <file>.key; returns when the certificate ends.

        `hosts` are the names and addresses of a broker; without them it is a client's.

        Raises:
            FleetError: There is one already, it cannot be written, or a name cannot stand in a certificate.
        """
        subject, names = _name(name), list(map(_host, hosts))
        key_path, path = directory / f"{file}.key", directory / f"{file}.crt"
        try:
            if key_path.exists() or path.exists():
                raise FleetError(f"{directory}: a certificate is there already; choose another directory")
        except OSError as error:
            raise FleetError(f"{directory}: cannot be made: {error.strerror}") from None
        files.make_private_directory(directory, FleetError)
        key = ec.generate_private_key(ec.SECP256R1())
        ends = min(self._now + timedelta(days=min(days, CA_DAYS)), self.certificate.not_valid_after_utc)
        usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            _builder(subject, self.certificate.subject, key, self._now, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        files.write_whole(key_path, _private(key))
        certificate = builder.sign(self._key, hashes.SHA256())
        files.write_whole(path, certificate.public_bytes(Encoding.PEM), files.PUBLIC)
        files.write_whole(directory / "ca.crt", self.certificate.public_bytes(Encoding.PEM), files.PUBLIC)
        return ends

    def _make(self, key_path: Path) -> None:
        files.make_private_directory(key_path.parent, FleetError)
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = _name("edge broker authority")
        builder = _builder(name, name, self._key, self._now, self._now + timedelta(days=CA_DAYS))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(authority=True), critical=True)
        self.certificate = builder.sign(self._key, hashes.SHA256())
        files.write_whole(key_path, _private(self._key))
        files.write_whole(self._path, self.certificate.public_bytes(Encoding.PEM), files.PUBLIC)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    """What the key is for: to sign certificates, or to prove who one is. Source: RFC 5280, 4.2.1.3."""
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    except ValueError:
        raise FleetError(
            f"{common_name[:70]!r}: a certificate takes names of 1 to 64 characters, site and device together"
        ) from None


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError:
        raise FleetError(
            f"--host {name!r}: write it as the name service has it, in ASCII (xn--...)"
        ) from None


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
