"""Signed provenance by C2PA (content credentials): who vouches that a file is synthetic and has not changed since.

Needs the extra `c2pa`. Nothing is asked of the network: there is no time stamp of an authority, so that a signature
holds for as long as its certificate does.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentdrift.data.files import replacing, sha256_of, write_text
from latentdrift.data.provenance.manifest import MANIFEST_FILE, read_manifest
from latentdrift.data.provenance.marks import STATEMENT, software
from latentdrift.data.provenance.reading import read_marks
from latentdrift.errors import ConfigurationError, DataError

FORMATS = {".png": "image/png", ".tif": "image/tiff", ".tiff": "image/tiff", ".gif": "image/gif"}
"""Formats that can hold a C2PA manifest and that this package writes."""

ASSERTION = "org.latentdrift.provenance"
SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
MADE, EDITED = SOURCE_TYPES + "trainedAlgorithmicMedia", SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"

SETTINGS: Mapping[str, Any] = {
    # No picture of the image beside the image, and nothing fetched from anywhere.
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True},
}

_MISSING = "Signing needs c2pa-python, which is not installed. Run `pip install 'latentdrift[c2pa]'`."


@dataclass(frozen=True)
class Signature:
    """What the signature of a file is worth.

    Attributes:
        valid: the file is as it was when it was signed, by the holder of the certificate's key.
        trusted: the certificate comes from one of the anchors that were given.
        signer: the certificate's name.
        problem: why it does not hold; empty where it does.
        provenance: what was signed about the image.
    """

    valid: bool
    trusted: bool
    signer: str
    problem: str = ""
    provenance: Mapping[str, Any] | None = None

    @property
    def words(self) -> str:
        """What is printed."""
        if not self.valid:
            return f"signature by {self.signer} does not hold"
        return f"signed by {self.signer}" + (", trusted" if self.trusted else ", by a certificate of unknown origin")


class FileSigner:
    """Signs files with one certificate.

    Args:
        certificate: PEM file, the signer's certificate first, then those up to the root. C2PA asks for an end-entity
            certificate for digital signatures, with an extended key usage such as e-mail protection.
        key: PEM file of its private key, not encrypted.

    Raises:
        ConfigurationError: c2pa-python is missing, or the files are no certificate and its key.
    """

    def __init__(self, certificate: str | Path, key: str | Path) -> None:
        c2pa = imported()
        chain, secret = read_pem(certificate, "certificate"), read_pem(key, "private key")
        try:
            info = c2pa.C2paSignerInfo(algorithm_of(secret, key).encode(), chain, secret, None)
            self.signer = c2pa.Signer.from_info(info)
            self.context = c2pa.Context.from_dict(dict(SETTINGS))
        except (c2pa.C2paError, ValueError, TypeError) as error:
            raise ConfigurationError(f"{certificate} and {key} cannot be signed with: {error}.") from error
        self.c2pa = c2pa

    def sign(self, path: str | Path, facts: Mapping[str, Any] | None = None) -> Path:
        """Write a signature into a file that is marked as synthetic; its pixels and marks stay as they are.

        Args:
            path: PNG, TIFF or GIF file.
            facts: what is signed beside the file's own marks.

        Raises:
            ConfigurationError: a format that holds no signature, or a certificate that C2PA does not accept.
            DataError: a file that is not marked as synthetic, is signed already, or cannot be written.
        """
        path = Path(path)
        kind = format_of(path)
        marks = read_marks(path)
        if not marks.synthetic:
            raise DataError(f"{path} is not marked as synthetic, so it is not signed as such. Give files made here.")
        if read_signature(path) is not None:
            raise DataError(f"{path} is signed already. Make the image again to sign it anew.")
        claim = claim_of(path.name, {**marks.facts, **(facts or {})})
        signed = io.BytesIO()
        try:
            with path.open("rb") as source:
                self.c2pa.Builder(claim, self.context).sign(self.signer, kind, source, signed)
        except self.c2pa.C2paError as error:
            raise ConfigurationError(
                f"{path} cannot be signed: {error}. Check that the certificate is for C2PA and the key is its own."
            ) from error
        with replacing(path) as partial:
            partial.write_bytes(signed.getvalue())
        return path


def claim_of(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the C2PA manifest of a synthetic file: how it came about, and our own provenance."""
    edited = facts.get("source_sha256") is not None
    kind = EDITED if edited else MADE
    maker, number = software().split(" ")
    actions: list[dict[str, Any]] = [
        {"action": "c2pa.created", "digitalSourceType": kind, "softwareAgent": {"name": maker, "version": number}}
    ]
    if edited:
        # The edited image itself is not an ingredient: it may be a patient's.
        actions.append(
            {
                "action": "c2pa.edited",
                "digitalSourceType": kind,
                "parameters": {"description": "Changed by a generative model"},
                "softwareAgent": {"name": maker, "version": number},
            }
        )
    told = {"statement": STATEMENT, **{str(key): str(value) for key, value in facts.items() if value is not None}}
    return {
        "title": name,
        "claim_generator_info": [{"name": maker, "version": number}],
        "assertions": [
            {"label": "c2pa.actions", "data": {"actions": actions}},
            {"label": ASSERTION, "data": told},
        ],
    }


def sign_folder(
    folder: str | Path, certificate: str | Path, key: str | Path
) -> tuple[list[Path], list[Path], list[Path]]:
    """Sign all synthetic files of a folder and write their new hashes into its manifest.

    Returns:
        The files signed, those that were signed before, and those marked as synthetic whose format holds no signature.

    Raises:
        ConfigurationError, DataError: see `FileSigner`; or the folder has no manifest, or does not agree with it.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        raise DataError(f"{folder} holds no {MANIFEST_FILE}. Give the folder of a command that makes images, or files.")
    signer = FileSigner(certificate, key)
    signed, before, without = [], [], []
    for entry in manifest["files"]:
        path = folder / entry["file"]
        if sha256_of(path) != entry["sha256"]:
            raise DataError(f"{path} has changed since it was made, so it is not signed. Make the images again.")
        if path.suffix.lower() not in FORMATS:
            without.append(path)
        elif read_signature(path) is not None:
            before.append(path)
        else:
            signed.append(path)
    model = {"model": manifest["model"].get("name"), "model_sha256": manifest["model"].get("sha256")}
    for entry in manifest["files"]:
        path = folder / entry["file"]
        if path in signed:
            signer.sign(path, {**model, "made": manifest["made"]})
            entry["sha256"], entry["signed"] = sha256_of(path), True
            # After each file, so that an interruption leaves a manifest that agrees.
            write_text(folder / MANIFEST_FILE, json.dumps(manifest, indent=2) + "\n")
    return signed, before, without


def read_signature(path: str | Path, anchors: str | None = None) -> Signature | None:
    """Return what the signature of a file is worth; None where there is none, or no c2pa-python to read it with.

    Args:
        path: the file.
        anchors: PEM text of certificates that are trusted; without, nobody is.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS or not path.is_file():
        return None
    try:
        c2pa = imported()
    except ConfigurationError:
        return None
    settings = dict(SETTINGS) | ({} if anchors is None else {"trust": {"trust_anchors": anchors}})
    try:
        with path.open("rb") as file:
            reader = c2pa.Reader.try_create(format_of(path), file, context=c2pa.Context.from_dict(settings))
            if reader is None:
                return None
            state, found = reader.get_validation_state(), json.loads(reader.json())
    except c2pa.C2paError as error:
        return Signature(False, False, "unknown", str(error))
    active = found["manifests"][found["active_manifest"]]
    who = active.get("signature_info", {})
    signer = str(who.get("common_name") or who.get("issuer") or "unknown")
    own = next((one["data"] for one in active.get("assertions", ()) if one["label"] == ASSERTION), None)
    if state in ("Valid", "Trusted"):
        return Signature(True, state == "Trusted", signer, provenance=own)
    failures = found.get("validation_results", {}).get("activeManifest", {}).get("failure", ())
    codes = [str(one["code"]) for one in failures if one["code"] != "signingCredential.untrusted"]
    return Signature(False, False, signer, ", ".join(dict.fromkeys(codes)) or "it is invalid", own)


def imported() -> Any:
    """Return the module c2pa.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import c2pa
    except ImportError as error:
        raise ConfigurationError(_MISSING) from error
    return c2pa


def format_of(path: Path) -> str:
    """Return the media type of a file.

    Raises:
        ConfigurationError: a format that holds no C2PA manifest.
    """
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(FORMATS)
        raise ConfigurationError(
            f"{path} cannot hold a signature; these can: {known}. Its SHA-256 stands in {MANIFEST_FILE}."
        ) from None


def read_pem(path: str | Path, what: str) -> bytes:
    """Return a PEM file.

    Raises:
        ConfigurationError: it cannot be read, or is no PEM.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"The {what} {path} cannot be read: {error.strerror or error}.") from error
    if b"-----BEGIN " not in content:
        raise ConfigurationError(f"{path} is no PEM file. Convert the {what} with `openssl`.")
    return content


def algorithm_of(secret: bytes, path: str | Path) -> str:
    """Return C2PA's name of the algorithm for a private key.

    Raises:
        ConfigurationError: an encrypted key, or one of a kind that C2PA does not know.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(secret, None)
    except TypeError as error:
        raise ConfigurationError(f"{path} is encrypted. Decrypt it first: openssl pkey -in KEY -out PLAIN.") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} holds no private key that can be read: {error}.") from error
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in curves:
        return curves[key.curve.name]
    raise ConfigurationError(f"{path} is a key of a kind that C2PA does not know. Use ECDSA P-256, RSA or Ed25519.")


def sign_files(paths: Sequence[Path], certificate: str | Path, key: str | Path) -> list[Path]:
    """Sign single files that no manifest lists; see `FileSigner`."""
    signer = FileSigner(certificate, key)
    for path in paths:
        listed = {entry["file"] for entry in (read_manifest(path.parent) or {"files": []})["files"]}
        if path.name in listed:
            raise ConfigurationError(
                f"{path} is listed in {path.parent / MANIFEST_FILE}: sign the folder, so that its hashes agree."
            )
    return [signer.sign(path) for path in paths]
