"""Certificates for tests: an authority, and what it signs."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

OPENSSL = shutil.which("openssl")


@dataclass(frozen=True)
class Signed:
    """A certificate, its key, and the authority that signed it."""

    authority: Path
    certificate: Path
    key: Path

    @property
    def options(self) -> dict[str, str]:
        """The options of a job."""
        return {
            "tls_ca_file": str(self.authority),
            "tls_cert": str(self.certificate),
            "tls_key": str(self.key),
        }


def sign(folder: Path) -> Signed:
    """Make an authority and a certificate that it signs, in a folder that is made."""
    folder.mkdir()
    new = ("req", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj")
    _openssl(folder, *new, "/CN=authority", "-x509", "-keyout", "ca.key", "-out", "ca.pem")
    _openssl(folder, *new[:4], "-subj", "/CN=member", "-keyout", "member.key", "-out", "member.csr")
    _openssl(
        folder, "x509", "-req", "-in", "member.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
        "-set_serial", "1", "-days", "2", "-out", "member.pem",
    )  # fmt: skip
    return Signed(folder / "ca.pem", folder / "member.pem", folder / "member.key")


def _openssl(folder: Path, *arguments: str) -> None:
    assert OPENSSL is not None
    subprocess.run([OPENSSL, *arguments], cwd=folder, check=True, capture_output=True)
