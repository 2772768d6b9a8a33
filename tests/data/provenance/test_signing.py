"""C2PA: a signed file reads back, a changed one does not hold; the certificates are made here."""

from __future__ import annotations

import builtins
import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentdrift.cli.__main__ import main
from latentdrift.data import write_png
from latentdrift.data.export.picture import picture_text
from latentdrift.data.provenance.manifest import Origin, SyntheticFile, write_manifest
from latentdrift.data.provenance.signing import ASSERTION, EDITED, MADE, FileSigner, read_signature
from latentdrift.errors import ConfigurationError, DataError

c2pa = pytest.importorskip("c2pa")
PIXELS = np.random.default_rng(0).integers(0, 255, (32, 32)).astype(np.uint8)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A chain of signer and root, the signer's key, and the root alone."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    folder = tmp_path_factory.mktemp("keys")
    since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)

    def name(text: str) -> Any:
        named = [(NameOID.COMMON_NAME, text), (NameOID.ORGANIZATION_NAME, "Test")]
        return x509.Name([x509.NameAttribute(oid, value) for oid, value in named])

    def usage(*, signs: bool) -> Any:
        return x509.KeyUsage(signs, False, False, False, False, not signs, not signs, False, False)

    root, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    made = []
    for text, key, end in (("Signer", own, True), ("Root", root, False)):
        built = (
            x509.CertificateBuilder()
            .subject_name(name(text))
            .issuer_name(name("Root"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(since + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(not end, None), True)
            .add_extension(usage(signs=end), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False)
        )
        if end:
            built = built.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        made.append(built.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    secret = own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain, key_file, root_file = folder / "chain.pem", folder / "key.pem", folder / "root.pem"
    chain.write_bytes(b"".join(made))
    key_file.write_bytes(secret)
    root_file.write_bytes(made[1])
    return chain, key_file, root_file


def read(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        found: dict[str, Any] = c2pa.Reader("image/png", file).get_active_manifest()
    return found


@pytest.mark.parametrize(("source", "kind"), [(None, MADE), ("cd" * 32, EDITED)])
def test_sign_read_back_and_tamper(
    keys: tuple[Path, Path, Path], tmp_path: Path, source: str | None, kind: str
) -> None:
    chain, key, root = keys
    path = tmp_path / "a.png"
    write_png(path, PIXELS, text={"model": "toy", "source_sha256": source}, synthetic=True)
    before = picture_text(path)
    assert read_signature(path) is None
    FileSigner(chain, key).sign(path, {"made": "today"})
    found = read_signature(path)
    assert found is not None
    assert (found.valid, found.trusted, found.signer) == (True, False, "Signer")
    trusted = read_signature(path, root.read_text())
    assert trusted is not None
    assert trusted.trusted
    manifest = read(path)
    told = {one["label"]: one["data"] for one in manifest["assertions"]}
    actions = told["c2pa.actions.v2"]["actions"]
    assert [one["action"] for one in actions] == ["c2pa.created"] + ["c2pa.edited"] * (source is not None)
    assert {one["digitalSourceType"] for one in actions} == {kind}
    assert told[ASSERTION]["model"] == "toy"
    assert told[ASSERTION]["made"] == "today"
    assert "thumbnail" not in manifest
    # Pixels and marks are as before.
    np.testing.assert_array_equal(np.asarray(Image.open(path)), PIXELS)
    assert before.items() <= picture_text(path).items()
    with pytest.raises(DataError, match="signed already"):
        FileSigner(chain, key).sign(path)
    content = bytearray(path.read_bytes())
    content[content.rfind(b"IDAT") + 12] ^= 1
    path.write_bytes(content)
    spoiled = read_signature(path)
    assert spoiled is not None
    assert not spoiled.valid
    assert "dataHash" in spoiled.problem


def test_a_folder_by_the_command(
    keys: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chain, key, root = keys
    origin = Origin({"name": "toy", "sha256": "ab" * 32}, {"used": "none"})
    files = [SyntheticFile(f"{seed}.png", seed) for seed in (0, 1)]
    for one in files:
        write_png(tmp_path / one.file, PIXELS, text=origin.marks() | one.marks(), synthetic=True)
    (tmp_path / "x.npz").write_bytes(b"")
    write_manifest(tmp_path, origin, [*files, SyntheticFile("x.npz")])
    sign = ["sign", str(tmp_path), "--certificate", str(chain), "--key", str(key), "--json"]
    assert main(sign) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["signed"]) == 2
    assert told["cannot hold a signature"] == [str(tmp_path / "x.npz")]
    assert main(sign) == 0
    assert len(json.loads(capsys.readouterr().out)["signed before"]) == 2
    (tmp_path / "x.npz").unlink()
    check = ["verify", *(str(tmp_path / one.file) for one in files), "--json"]
    assert main([*check, "--trust", str(root)]) == 0
    rows = json.loads(capsys.readouterr().out)["files"]
    assert {row["signature"] for row in rows} == {"signed by Signer, trusted"}
    content = bytearray((tmp_path / "0.png").read_bytes())
    content[content.rfind(b"IDAT") + 12] ^= 1
    (tmp_path / "0.png").write_bytes(content)
    assert main(check) == 1
    first, second = json.loads(capsys.readouterr().out)["files"]
    assert any("does not hold" in text for text in first["problems"])
    assert second["problems"] == []


def test_what_cannot_be_signed(keys: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, key, root = keys
    write_png(tmp_path / "real.png", PIXELS)
    with pytest.raises(DataError, match="not marked as synthetic"):
        FileSigner(chain, key).sign(tmp_path / "real.png")
    (tmp_path / "a.nii").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="cannot hold a signature"):
        FileSigner(chain, key).sign(tmp_path / "a.nii")
    with pytest.raises(ConfigurationError, match="no private key"):
        FileSigner(chain, root)
    with pytest.raises(ConfigurationError, match="no PEM"):
        FileSigner(tmp_path / "real.png", key)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        FileSigner(tmp_path / "none.pem", key)
    write_png(tmp_path / "a.png", PIXELS, synthetic=True)
    plain = builtins.__import__

    def without(name: str, *given: Any, **more: Any) -> Any:
        if name == "c2pa":
            raise ImportError("No module named 'c2pa'")
        return plain(name, *given, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match=r"latentdrift\[c2pa\]"):
        FileSigner(chain, key)
    assert read_signature(tmp_path / "a.png") is None
