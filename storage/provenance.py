"""Content credentials: who made a picture and how, signed into the file (C2PA), and read again.

Workers sign what they publish; the API tells whether a picture came from here. The certificate is the operator's.
"""

import contextlib
import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from PIL import Image

from storage.settings import StoreSettings

log = logging.getLogger(__name__)

_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
EDITED = _TYPES + "compositeWithTrainedAlgorithmicMedia"
GENERATED = _TYPES + "trainedAlgorithmicMedia"

GENERATOR = "Darkroom"
LABEL = "com.darkroom.receipt"


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What a file's credentials say. `valid`: nothing was changed since it was signed. `ours`: signed with our certificate."""

    valid: bool
    ours: bool
    signer: str | None
    generator: str | None
    action: str | None
    source_type: str | None
    generation_id: str | None


class Signer:
    """Signs with one certificate and recognises it. Raises `ValueError` when certificate and key cannot be used.

    The certificate is PEM, the leaf first and its authority last, for an EC key on P-256 (PKCS #8).
    """

    def __init__(self, certificate: str, key: str) -> None:
        self._certificate, self._key = certificate, key
        chain = x509.load_pem_x509_certificates(certificate.encode())
        self._serial = str(chain[0].serial_number)
        self._anchor = chain[-1].public_bytes(serialization.Encoding.PEM).decode()
        # What cannot sign stops the start, not every edit after the GPU's work.
        blank = io.BytesIO()
        Image.new("RGB", (8, 8)).save(blank, "PNG")
        try:
            signed = self.signed(blank.getvalue(), "image/png", generation_id="start", edited=False, receipt="{}")
        except c2pa.C2paError as exc:
            raise ValueError(f"the signing certificate or its key cannot be used: {exc}") from exc
        credentials = self.read(signed, "image/png")
        if credentials is None or not credentials.ours:
            raise ValueError("the signing certificate makes signatures that are not valid")

    @contextlib.contextmanager
    def _open(self) -> Iterator[c2pa.Signer]:
        info = c2pa.C2paSignerInfo(b"es256", self._certificate.encode(), self._key.encode(), None)
        try:
            signer = c2pa.Signer.from_info(info)
        except c2pa.C2paError as exc:
            raise ValueError(f"the signing certificate or its key cannot be used: {exc}") from exc
        with contextlib.closing(signer):
            yield signer

    @contextlib.contextmanager
    def _context(self) -> Iterator[c2pa.Context]:
        settings = {
            # A thumbnail of a WebP would be many times the picture.
            "builder": {"thumbnail": {"enabled": False}},
            "trust": {"trust_anchors": self._anchor},
            # Each signature would be verified as soon as it is made, which takes as long again: one was, at the start.
            "verify": {
                "verify_after_sign": False,
                "verify_trust": True,
                "remote_manifest_fetch": False,
                "ocsp_fetch": False,
            },
        }
        with contextlib.ExitStack() as stack:
            made = stack.enter_context(contextlib.closing(c2pa.Settings.from_dict(settings)))
            yield stack.enter_context(contextlib.closing(c2pa.Context(made)))

    def signed(self, data: bytes, content_type: str, *, generation_id: str, edited: bool, receipt: str) -> bytes:
        """The file with credentials: what was done (edited or created by a trained model), by what, and the receipt (JSON)."""
        source_type = EDITED if edited else GENERATED
        # The first action tells how the file came to be; the input is not kept in it, so none was opened.
        actions = [{"action": "c2pa.created", "digitalSourceType": source_type}]
        if edited:
            actions.append({"action": "c2pa.edited", "digitalSourceType": source_type})
        manifest = {
            "claim_generator_info": [{"name": GENERATOR}],
            "title": generation_id,
            "format": content_type,
            "assertions": [
                {"label": "c2pa.actions", "data": {"actions": actions}},
                {"label": LABEL, "data": {"generation_id": generation_id, **json.loads(receipt)}},
            ],
        }
        target = io.BytesIO()
        with contextlib.ExitStack() as stack:
            signer, context = stack.enter_context(self._open()), stack.enter_context(self._context())
            builder = stack.enter_context(contextlib.closing(c2pa.Builder(manifest, context)))
            builder.sign(signer, content_type, io.BytesIO(data), target)
        return target.getvalue()

    def read(self, data: bytes, content_type: str) -> Credentials | None:
        """What a file's credentials say; None when it has none that can be read."""
        with self._context() as context:
            try:
                reader = c2pa.Reader(content_type, io.BytesIO(data), context=context)
            except c2pa.C2paError:
                return None
            with contextlib.closing(reader):
                state, told = reader.get_validation_state(), json.loads(reader.json())
        manifest: dict[str, Any] = told["manifests"][told["active_manifest"]]
        signature = manifest.get("signature_info", {})
        assertions = {one["label"].partition(".v2")[0]: one["data"] for one in manifest.get("assertions", ())}
        actions = assertions.get("c2pa.actions", {}).get("actions", [{}])
        generators = manifest.get("claim_generator_info") or [{}]
        ours = state == "Trusted" and signature.get("cert_serial_number") == self._serial
        return Credentials(
            valid=state in ("Valid", "Trusted"),
            ours=ours,
            signer=signature.get("common_name") or signature.get("issuer"),
            generator=generators[0].get("name"),
            action=actions[-1].get("action"),
            source_type=actions[-1].get("digitalSourceType"),
            generation_id=assertions.get(LABEL, {}).get("generation_id") if ours else None,
        )


def signer_of(settings: StoreSettings) -> Signer | None:
    """The operator's signer; None when no certificate is configured. Raises `ValueError` naming the setting."""
    certificate, key = settings.signing_certificate, settings.signing_key
    if certificate is None or key is None:
        if certificate is not None or key is not None:
            raise ValueError("DARKROOM_SIGNING_CERTIFICATE and DARKROOM_SIGNING_KEY belong together")
        return None
    try:
        return Signer(certificate.read_text(), key.read_text())
    except (OSError, ValueError) as exc:
        raise ValueError(f"DARKROOM_SIGNING_CERTIFICATE {certificate}: {exc}") from exc
