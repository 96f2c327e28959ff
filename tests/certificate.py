"""A certificate for 127.0.0.1 and localhost, for the tests that talk TLS."""

import shutil
import ssl
import subprocess
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def tls(tmp_path_factory):
    """Contexts of a server on 127.0.0.1 and of a client that trusts only it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]
        + ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=127.0.0.1"]
        + ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
        + ["-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=str(certificate))
    return SimpleNamespace(server=server, client=client, key=key, cert=certificate)
