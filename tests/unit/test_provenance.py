"""Results are signed; the signature is checked by the reference reader of C2PA and by our own words for it."""

import io
import json
import subprocess
import sys
from pathlib import Path

import c2pa
import pytest
from PIL import Image

from infra import certificates
from storage import provenance
from storage.settings import StoreSettings
from tests.conftest import encoded

KINDS = [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")]
everyone = pytest.mark.parametrize(("format_", "content_type"), KINDS)


def _signer(folder: Path) -> provenance.Signer:
    certificates.make(folder)
    return provenance.Signer((folder / certificates.CERTIFICATE).read_text(), (folder / certificates.KEY).read_text())


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> provenance.Signer:
    return _signer(tmp_path_factory.mktemp("ours"))


def _picture(format_: str) -> bytes:
    return encoded(Image.effect_noise((64, 64), 60).convert("RGB"), format_)


def _signed(signer: provenance.Signer, data: bytes, content_type: str, *, edited: bool = True) -> bytes:
    return signer.signed(data, content_type, generation_id="g-1", edited=edited, receipt='{"seed": 7}')


@everyone
def test_the_reference_reader_finds_the_signature_valid_and_what_was_done(
    signer: provenance.Signer, format_: str, content_type: str
) -> None:
    with c2pa.Reader(content_type, io.BytesIO(_signed(signer, _picture(format_), content_type))) as reader:
        told = json.loads(reader.json())
        assert reader.get_validation_state() == "Valid"
    # The one complaint about a development certificate: nobody else trusts it.
    assert [status["code"] for status in told["validation_status"]] == ["signingCredential.untrusted"]
    manifest = told["manifests"][told["active_manifest"]]
    data = {one["label"]: one["data"] for one in manifest["assertions"]}
    assert data["com.darkroom.receipt"] == {"generation_id": "g-1", "seed": 7}
    assert {action["digitalSourceType"].rpartition("/")[2] for action in data["c2pa.actions.v2"]["actions"]} == {
        "compositeWithTrainedAlgorithmicMedia"
    }


@everyone
@pytest.mark.parametrize(
    ("edited", "action", "kind"),
    [
        (True, "c2pa.edited", "compositeWithTrainedAlgorithmicMedia"),
        (False, "c2pa.created", "trainedAlgorithmicMedia"),
    ],
)
def test_an_edit_and_a_picture_from_text_are_told_apart(
    signer: provenance.Signer, format_: str, content_type: str, edited: bool, action: str, kind: str
) -> None:
    found = signer.read(_signed(signer, _picture(format_), content_type, edited=edited), content_type)
    assert found is not None
    assert (found.valid, found.ours, found.generation_id, found.generator) == (True, True, "g-1", "Darkroom")
    assert (found.action, found.source_type) == (action, f"http://cv.iptc.org/newscodes/digitalsourcetype/{kind}")


@everyone
def test_signing_changes_no_pixel_and_adds_little(signer: provenance.Signer, format_: str, content_type: str) -> None:
    plain = _picture(format_)
    signed = _signed(signer, plain, content_type)
    assert Image.open(io.BytesIO(signed)).tobytes() == Image.open(io.BytesIO(plain)).tobytes()
    assert len(signed) - len(plain) < 8000


@everyone
def test_a_changed_picture_is_no_longer_valid_nor_ours(
    signer: provenance.Signer, format_: str, content_type: str
) -> None:
    plain, other = _picture(format_), _picture(format_)
    signed = _signed(signer, plain, content_type)
    # Some bytes of the picture itself, from its middle.
    piece = plain[len(plain) // 2 : len(plain) // 2 + 8]
    assert signed.count(piece) == 1
    assert piece not in other
    found = signer.read(signed.replace(piece, bytes(8)), content_type)
    assert found is None or (found.valid, found.ours, found.generation_id) == (False, False, None)


@everyone
def test_what_somebody_else_signed_is_valid_but_not_ours(
    signer: provenance.Signer, tmp_path: Path, format_: str, content_type: str
) -> None:
    found = signer.read(_signed(_signer(tmp_path), _picture(format_), content_type), content_type)
    assert found is not None
    assert (found.valid, found.ours, found.generation_id) == (True, False, None)


@everyone
def test_a_picture_without_credentials_has_none(signer: provenance.Signer, format_: str, content_type: str) -> None:
    assert signer.read(_picture(format_), content_type) is None


def test_certificate_and_key_belong_together(tmp_path: Path) -> None:
    certificates.make(tmp_path)
    with pytest.raises(ValueError, match="belong together"):
        provenance.signer_of(StoreSettings(signing_certificate=tmp_path / certificates.CERTIFICATE))
    assert provenance.signer_of(StoreSettings()) is None


def test_a_certificate_that_cannot_be_used_stops_the_start_naming_the_setting(tmp_path: Path) -> None:
    certificates.make(tmp_path)
    (tmp_path / "bad.pem").write_text("nothing")
    settings = StoreSettings(signing_certificate=tmp_path / "bad.pem", signing_key=tmp_path / certificates.KEY)
    with pytest.raises(ValueError, match=r"DARKROOM_SIGNING_CERTIFICATE .*bad.pem"):
        provenance.signer_of(settings)


def test_a_key_of_another_certificate_stops_the_start(tmp_path: Path) -> None:
    for name in ("one", "two"):
        certificates.make(tmp_path / name)
    settings = StoreSettings(
        signing_certificate=tmp_path / "one" / certificates.CERTIFICATE, signing_key=tmp_path / "two" / certificates.KEY
    )
    with pytest.raises(ValueError, match="DARKROOM_SIGNING_CERTIFICATE"):
        provenance.signer_of(settings)


def test_the_admin_command_makes_a_certificate_and_says_how_to_use_it(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "darkroom-admin"), "certificate", str(tmp_path / "new")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    settings = dict(line.split("=", 1) for line in told.split())
    paths = {name.removeprefix("DARKROOM_").lower(): Path(path) for name, path in settings.items()}
    assert provenance.signer_of(StoreSettings(**paths)) is not None  # type: ignore[arg-type]


def test_the_key_is_its_owners_alone(tmp_path: Path) -> None:
    certificates.make(tmp_path)
    assert (tmp_path / certificates.KEY).stat().st_mode & 0o077 == 0
