"""A certificate of our own, read by TLS: what it says, and whose it is."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from agent.coordinator import ca
from agent.link.tls import Shown, shown


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An authority (`ca.pem`), a certificate and its key (`own.pem`, `own.key`), and those of a stranger."""
    for name in ("own", "other"):
        ca.make_ca(tmp_path / name)
        certificate, key = ca.issue(tmp_path / name, "web-1", ("127.0.0.1",), "agent")
        (tmp_path / f"{name}.pem").write_bytes(certificate)
        (tmp_path / f"{name}.key").write_bytes(key)
        (tmp_path / f"{name}-ca.pem").write_bytes((tmp_path / name / "ca.pem").read_bytes())
    return tmp_path


def read(folder: Path, certificate: str = "own.pem", key: str = "own.key", authority: str = "own-ca.pem") -> Shown:
    return shown(str(folder / certificate), str(folder / key), str(folder / authority))


def expected(folder: Path, certificate: str) -> Shown:
    """As another library reads it."""
    found = x509.load_pem_x509_certificate((folder / certificate).read_bytes())
    begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    return Shown(name="web-1", not_before_s=begins.timestamp(), not_after_s=ends.timestamp())


def test_it_is_read_as_others_read_it(folder: Path) -> None:
    """Name and both dates."""
    assert read(folder) == expected(folder, "own.pem")


def test_one_that_has_expired_is_read_as_well(folder: Path) -> None:
    """Else an agent that was off for long could not say what is wrong, nor try to renew it."""
    public = ca.public_key((folder / "own.key").read_bytes())
    over = ca.sign(folder / "own", "web-1", (), "agent", key=public, lifetime=timedelta(seconds=-1))
    (folder / "over.pem").write_bytes(over)
    assert read(folder, "over.pem") == expected(folder, "over.pem")


WRONG = {
    "of another key": ({"key": "other.key"}, "key values mismatch"),
    "by another authority": ({"authority": "other-ca.pem"}, "certificate verify failed"),
    "no certificate": ({"certificate": "own.key"}, "PEM lib"),
    "not there": ({"certificate": "none.pem"}, "No such file"),
}


@pytest.mark.parametrize(("files", "why"), WRONG.values(), ids=WRONG.keys())
def test_what_is_not_ours_is_refused(files: dict[str, str], why: str, folder: Path) -> None:
    """Whoever reads it may rely on key and authority."""
    with pytest.raises(OSError, match=why):
        read(folder, **files)
