"""What may not be asked, shown or made: the verdict is data."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from storage.contracts import errors
from workers.filters import WORDS_FILE, Filters, ImageClassifier, WordFilter


@pytest.mark.parametrize(
    "prompt",
    [
        "nudify this",
        "NUDIFY",
        "please, Nüdify her!",
        "Remove  her\nclothes",
        "remove her-clothes now",
        "child_porn",
        "nu\u200bdify her",
        "𝐍𝐔𝐃𝐈𝐅𝐘",
    ],
)
def test_phrases_are_found_whatever_their_case_accents_and_spaces(prompt: str) -> None:
    with pytest.raises(errors.ContentFilteredError) as refused:
        WordFilter.from_file(WORDS_FILE).judge(prompt).enforce()
    details: Any = refused.value.details
    assert (details["stage"], details["filter"], details["score"], details["threshold"]) == (
        "prompt",
        "words",
        1.0,
        1.0,
    )
    assert len(details["version"]) == 12
    assert "nud" not in refused.value.message.lower()


@pytest.mark.parametrize(
    "prompt", ["", "make it blue", "remove her closet", "a nudifying idea", "take the clothes line away"]
)
def test_other_prompts_pass(prompt: str) -> None:
    assert WordFilter.from_file(WORDS_FILE).judge(prompt).score == 0


def test_an_empty_list_refuses_nothing() -> None:
    assert WordFilter([]).judge("nudify").score == 0


def test_the_version_changes_with_the_words() -> None:
    assert WordFilter(["a"]).judge("").version != WordFilter(["b"]).judge("").version


def test_a_list_that_is_not_there_stops_the_start_naming_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"DARKROOM_FILTERED_WORDS .*none.txt"):
        WordFilter.from_file(tmp_path / "none.txt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of the real class, small, whose head leans towards `nsfw`."""
    torch.manual_seed(1)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=16,
        id2label={0: "normal", 1: "nsfw"}, label2id={"normal": 0, "nsfw": 1},
    )  # fmt: skip
    model = ViTForImageClassification(config).eval()
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([0.0, 1.0]))
    target = tmp_path_factory.mktemp("classifier")
    model.save_pretrained(target, safe_serialization=True)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(target)
    return target


def _classifier(folder: Path, threshold: float, labels: tuple[str, ...] = ("nsfw",)) -> ImageClassifier:
    return ImageClassifier(str(folder), refused=labels, threshold=threshold)


def test_a_picture_is_judged_by_the_probability_of_the_refused_labels(folder: Path) -> None:
    picture = Image.effect_noise((64, 48), 80).convert("RGB")
    nsfw = _classifier(folder, 0.5).judge(picture, "input")
    normal = _classifier(folder, 0.5, ("normal",)).judge(picture, "output")
    assert nsfw.score > 0.5 > normal.score
    assert nsfw.score + normal.score == pytest.approx(1, abs=1e-3)
    assert (nsfw.filter, nsfw.version, nsfw.stage, normal.stage) == (folder.name, "local", "input", "output")


def test_the_threshold_decides(folder: Path) -> None:
    picture = Image.new("RGB", (64, 48), "grey")
    filters = {
        threshold: Filters(words=WordFilter([]), images=_classifier(folder, threshold)) for threshold in (0.5, 0.99)
    }
    filters[0.99].check_picture(picture, "output")
    with pytest.raises(errors.ContentFilteredError, match="The output was refused"):
        filters[0.5].check_picture(picture, "output")


def test_a_label_the_classifier_does_not_have_stops_the_start(folder: Path) -> None:
    with pytest.raises(ValueError, match="DARKROOM_IMAGE_FILTER_LABELS: 'gore' is none of normal, nsfw"):
        _classifier(folder, 0.5, ("gore",))


def test_a_classifier_that_is_not_there_stops_the_start_naming_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"DARKROOM_IMAGE_FILTER .*leave it empty to go without"):
        _classifier(tmp_path, 0.5)
