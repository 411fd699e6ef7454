"""The link over TLS: the broker's certificate is checked, and so is ours where it asks."""

import datetime as dt
import ipaddress
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.errors import Unavailable
from agent.link.mqtt import Link
from tests.simulators.broker import RunningBroker, mosquitto_broker, needs_mosquitto

pytestmark = needs_mosquitto


def authority(name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A self-signed certificate that may sign others, and stand for 127.0.0.1 itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def write(folder: Path, name: str) -> tuple[Path, Path]:
    """Write NAME.pem and NAME.key."""
    certificate, key = authority(name)
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    for path in paths:
        path.chmod(0o644)  # mosquitto leaves root behind before it reads them
    return paths


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="certificates-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def broker(folder: Path) -> Iterator[RunningBroker]:
    certificate, key = write(folder, "broker")
    device, _ = write(folder, "device")
    extra = f"certfile {certificate}\nkeyfile {key}\ncafile {device}\nrequire_certificate true"
    with mosquitto_broker(extra=extra) as running:
        yield running


async def test_connects_and_publishes_with_both_certificates_checked(
    broker: RunningBroker, folder: Path
) -> None:
    settings = broker.settings(
        ca_file=folder / "broker.pem",
        certificate_file=folder / "device.pem",
        key_file=folder / "device.key",
    )
    got: list[bytes] = []
    async with Link(settings, client_id="device") as link:
        await link.connected(15)
        await link.publish("t/blob", bytes(120 * 1024), retain=True)
        await link.subscribe(["t/blob"], lambda message: got.append(message.payload))
        await link.publish("t/blob", b"small")
    assert bytes(120 * 1024) in got


async def test_a_broker_whose_certificate_we_do_not_know_is_not_talked_to(
    broker: RunningBroker, folder: Path
) -> None:
    stranger, _ = write(folder, "stranger")
    async with Link(broker.settings(ca_file=stranger), client_id="device") as link:
        with pytest.raises(Unavailable, match="certificate verify failed"):
            await link.connected(1.0)


async def test_without_our_certificate_the_broker_lets_nobody_in(
    broker: RunningBroker, folder: Path
) -> None:
    settings = broker.settings(ca_file=folder / "broker.pem")
    async with Link(settings, client_id="device") as link:
        with pytest.raises(Unavailable, match="cannot reach broker"):
            await link.connected(1.0)
