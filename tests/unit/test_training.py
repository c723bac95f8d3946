"""What the small trained model is made of: exact operations, instructions, and an encoder that is computed."""

import gzip
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import CLIPTextModel, T5EncoderModel

from training import autoencoder, losses, networks, words
from training.checkpoints import Course, Limits, begun_anew
from training.conditioning import conditioning, rows
from training.consensus import Consensus
from training.lessons import told
from training.operations import EVERYTHING, OPERATIONS, Edit, Operation, go_together
from training.sentence_batches import batched
from training.sentences import exclusions, grammar, instructions, pairs, wordnet
from training.sentences.altered import altered
from training.sentences.held_out import HELD_OUT, SetName, held_out_pairs, held_out_sentences


def test_the_computed_encoder_is_the_linear_map() -> None:
    torch.manual_seed(0)
    linear = {
        "weight": torch.randn(networks.LATENT_CHANNELS, 3, 8, 8) / 8,
        "bias": torch.randn(networks.LATENT_CHANNELS),
    }
    vae = networks.autoencoder()
    autoencoder.write_encoder(vae, linear)
    pictures = autoencoder.pixels(torch.rand(2, 3, 64, 96))
    with torch.no_grad():
        found = vae.eval().encode(pictures).latent_dist
    assert torch.allclose(found.mode(), autoencoder.encoded(pictures, linear), atol=0.02)
    assert float(found.std.max()) < 1e-3, "nothing is left to chance"


def test_what_the_map_keeps_comes_back() -> None:
    torch.manual_seed(0)
    linear = {"weight": torch.randn(networks.LATENT_CHANNELS, 3, 8, 8), "bias": torch.randn(networks.LATENT_CHANNELS)}
    kept = torch.linalg.pinv(linear["weight"].flatten(1))
    cells = (kept @ torch.rand(networks.LATENT_CHANNELS, 6)) * 0.1
    pictures = torch.nn.functional.fold(cells[None], (16, 24), 8, stride=8)
    undone = autoencoder.undone(autoencoder.encoded(pictures, linear), linear)
    assert np.abs(undone - ((pictures[0] + 1) / 2).permute(1, 2, 0).numpy()).max() < 0.01


@pytest.mark.parametrize("operation", EVERYTHING, ids=lambda operation: operation.name)
def test_an_operation_gives_a_picture_of_the_same_shape(operation: Operation) -> None:
    picture = np.random.default_rng(0).random((64, 64, 3), np.float32)
    for strength in (0.5, 1.0, 1.6):
        exact = operation.exact(picture, strength)
        assert exact.shape == picture.shape
        assert 0 <= exact.min() <= exact.max() <= 1


def _parts(phrasing: str) -> list[str]:
    """Texts, and between them the names of places that are filled in."""
    return re.split(r"{(.*?)}", phrasing.rstrip(".!?").lower())


def _can_become(parts: list[str], sentence: str) -> bool:
    """Whether a phrasing, filled in, is this sentence, but for what is said before and after it."""
    # A pattern is compiled for the few that may fit.
    if not sentence.startswith(parts[0]) or not sentence.endswith(parts[-1]):
        return False
    if not all(text in sentence for text in parts[::2]):
        return False
    texts = [re.escape(text) for text in parts]
    texts[1::2] = [f"(?:{'|'.join(map(re.escape, CHOICES[name]))})" for name in parts[1::2]]
    return re.fullmatch("".join(texts), sentence) is not None


CHOICES = {
    "it": grammar.listed("subjects"),
    "much": ["", *(f"{word} " for word in (*grammar.listed("weak"), *grammar.listed("strong")))],
    "colour": [word for words in grammar.listed("colours").values() for word in words],
}


def test_no_held_out_sentence_can_come_of_the_phrasings() -> None:
    assert set(HELD_OUT) == set(instructions.PHRASINGS)
    assert min(map(len, HELD_OUT.values())) >= 4
    sets: tuple[SetName, ...] = get_args(SetName)
    sentences = [sentence for which in sets for _, sentence, _ in held_out_sentences(which)]
    sentences += [sentence for which in sets for sentence, _ in held_out_pairs(which)]
    held_out = [sentence.lower().rstrip(".!?") for sentence in sentences]
    trained = itertools.chain(*instructions.PHRASINGS.values(), *pairs.PAIRS.values())
    phrasings = [_parts(one) for one in trained]
    assert [one for one in held_out if any(_can_become(parts, one) for parts in phrasings)] == []


def test_a_phrasing_has_only_places_that_are_filled_in() -> None:
    for name, phrasings in instructions.PHRASINGS.items():
        allowed = {"it"} if name == instructions.UNKNOWN else {"it", "much", "colour"}
        for phrasing in phrasings:
            assert set(re.findall(r"{(.*?)}", phrasing)) <= allowed, phrasing


TOGETHER = {
    frozenset((first.phrased_as, second.phrased_as)): Edit((first, second))
    for first, second in itertools.combinations(OPERATIONS, 2)
    if go_together(first, second) and not (first.colour and second.colour)
}
"""An edit of each two tables that make sense in one instruction."""


def test_sentences_are_written_for_every_two_operations_that_go_together() -> None:
    assert set(pairs.PAIRS) == set(TOGETHER)
    for tables, sentences in pairs.PAIRS.items():
        coloured = {"colour"} if tables & {"tint", "border"} else set()
        for sentence in sentences:
            assert set(re.findall(r"{(.*?)}", sentence)) == coloured, sentence


@pytest.fixture
def few_words_of_wordnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Carried copies of a word each, read instead of Debian's package, which few machines have."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(wordnet, "INSTALLED", tmp_path / "not installed")
    wordnet.CARRIED.mkdir(parents=True)
    for part in wordnet.PARTS:
        line = f"00001740 05 {part[0]} 01 {part}_horse 0 000 | an animal of this kind; the horses were led to water  "
        wordnet.copy(part).write_bytes(gzip.compress(f"  1 a line of the licence\n{line}\n".encode("latin-1")))
    cached = (wordnet.sentences, wordnet.things)
    for one in cached:
        one.cache_clear()
    yield
    for one in cached:
        one.cache_clear()


@pytest.mark.usefixtures("few_words_of_wordnet")
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_sentence_is_complete_and_depends_on_its_seed_alone(operation: Operation) -> None:
    for seed in range(200):
        strength = (0.5, 1.0, 1.6)[seed % 3]
        edit = Edit((operation,), strength)
        first, second = (instructions.worded(np.random.default_rng(seed), edit) for _ in range(2))
        assert first == second
        assert not set("{}") & set(first)


@pytest.mark.usefixtures("few_words_of_wordnet")
def test_two_operations_are_asked_for_as_somebody_wrote_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "finished", lambda rng, sentence: sentence)
    for tables, edit in TOGETHER.items():
        colour = next((one.colour for one in edit.operations if one.colour), None)
        names = grammar.listed("colours")[colour] if colour else [""]
        written = {one.replace("{colour}", name) for one in pairs.PAIRS[tables] for name in names}
        asked = {instructions.worded(np.random.default_rng(seed), edit) for seed in range(60)}
        assert asked & written, tables
        assert asked - written, tables


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_what_is_ruled_out_beside_a_request_is_another_thing(operation: Operation) -> None:
    ruled_out, sentences = set(), []
    for seed in range(300):
        rng = np.random.default_rng(seed)

        def short(other: Operation, form: str) -> str:
            ruled_out.add(other)
            return "another thing"

        sentences.append(
            exclusions.excluding(
                rng, operation, "this.", lambda rng=rng: OPERATIONS[rng.integers(len(OPERATIONS))], short
            )  # type: ignore[misc]
        )
    assert operation not in ruled_out
    assert all("this" in one and not set("{}") & set(one) for one in sentences)
    changed = exclusions.CHANGES.get(operation.phrased_as, ())
    for name, words_for_it in exclusions.QUALITIES.items():
        assert any(word in one for word in words_for_it for one in sentences) is (name not in changed), name


def test_words_of_wordnet_are_things_and_sentences(few_words_of_wordnet: None) -> None:
    assert wordnet.things() == ("noun horse",)
    assert set(wordnet.sentences()) == {"an animal of this kind", "the horses were led to water"}


def test_what_is_said_of_things_has_only_places_that_are_filled_in() -> None:
    for name in ("reasons_before", "reasons_after", "mistakable"):
        for said in grammar.listed(name):
            assert set(re.findall(r"{(.*?)}", said)) <= {"a", "b", "c", "it"}, said


@pytest.mark.usefixtures("few_words_of_wordnet")
def test_an_altered_sentence_has_similar_words_and_is_never_empty() -> None:
    words_of = [instructions.instruction(np.random.default_rng(seed))[0].lower().split() for seed in range(200)]
    similar = {word: ("replaced",) for words in words_of for word in words}
    sentences = [altered(np.random.default_rng(seed), similar) for seed in range(200)]
    assert all(sentences)
    replaced = sum(sentence.split().count("replaced") for sentence in sentences)
    assert 0.1 < replaced / sum(len(sentence.split()) for sentence in sentences) < 0.3
    assert sentences == [altered(np.random.default_rng(seed), similar) for seed in range(200)]


def _shipped_encoders() -> dict[str, torch.nn.Module]:
    kinds = {"text_encoder": CLIPTextModel, "text_encoder_2": T5EncoderModel}
    return {
        name: kind.from_pretrained(networks.SHIPPED, subfolder=name, dtype=torch.float32)
        for name, kind in kinds.items()
    }


@torch.no_grad()
def test_the_encoders_learn_what_the_teacher_says_of_sentences_without_a_label() -> None:
    encoders, tokenizers = _shipped_encoders(), words.tokenizers(Path("/nowhere"))
    sepia, red = (next(one for one in OPERATIONS if one.name == name) for name in ("sepia", "border red"))
    batch = batched(tokenizers, [("make it sepia", Edit((sepia,)))], ("sepia please",))

    def loss(told: Operation) -> float:
        logits = torch.tensor([[20.0 * (one is told) for one in EVERYTHING]])
        return float(losses.loss_of(batch, encoders, lambda _: logits))

    assert loss(sepia) + 1 < loss(red)


def test_a_consensus_is_the_mean_of_what_teacher_and_encoders_choose() -> None:
    sepia, red = (next(n for n, one in enumerate(EVERYTHING) if one.name == name) for name in ("sepia", "border red"))
    taught = functional.one_hot(torch.tensor([red]), len(EVERYTHING)) * 20.0
    consensus = Consensus(lambda _: taught, _shipped_encoders(), words.tokenizers(Path("/nowhere")))
    (shares,) = consensus(["make it sepia"]).exp()
    assert float(shares.sum()) == pytest.approx(1)
    assert shares[[sepia, red]].tolist() == pytest.approx([2 / 3, 1 / 3], abs=0.03)


def test_sentences_of_like_length_are_read_together_with_the_same_outcome() -> None:
    clip = _shipped_encoders()["text_encoder"].eval()
    sentences = [
        "sepia",
        "make it a little darker please",
        "a warm picture of the sea, and bright",
        "darker",
        "blur it",
    ]
    tokens, _ = words.tokenizers(Path())(sentences)
    with torch.no_grad():
        torch.testing.assert_close(losses.pooled(clip, tokens), clip(tokens).pooler_output)


@pytest.mark.usefixtures("few_words_of_wordnet")
def test_clip_learns_alone_and_the_other_encoder_can_go_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "STEPS", 1)
    words.train(tmp_path, Limits(clip_alone=True))
    before, after = _shipped_encoders(), words.course(tmp_path).networks
    assert [_are_alike(before[name], after[name]) for name in ("text_encoder", "text_encoder_2")] == [False, True]
    monkeypatch.setattr(words, "STEPS", 2)
    words.train(tmp_path, Limits())
    assert not _are_alike(before["text_encoder_2"], words.course(tmp_path).networks["text_encoder_2"])


def _are_alike(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(*pair) for pair in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("width", [networks.TEXT_WIDTH, networks.POOLED_WIDTH])
def test_conditioning_tells_every_operation_from_every_other(width: int) -> None:
    vectors = torch.stack([conditioning(Edit((operation,)), width) for operation in EVERYTHING])
    assert torch.allclose(vectors @ vectors.T / width, torch.eye(len(EVERYTHING)))
    brighter = next(operation for operation in OPERATIONS if operation.name == "brighter")
    weak, plain = (conditioning(Edit((brighter,), strength), width) for strength in (0.5, 1.0))
    assert 0.5 < float(weak @ plain) / width < 0.95


def test_where_t5_says_another_thing_clip_says_the_edit() -> None:
    rng, t5, clip = np.random.default_rng(0), 0, 0
    for number in range(600):
        meant = OPERATIONS[number % len(OPERATIONS)]
        says = [vector @ rows(len(vector)).T / len(vector) for vector in told(rng, Edit((meant,)))]
        t5 += EVERYTHING[int(says[0].argmax())] is meant
        clip += EVERYTHING[int(says[1].argmax())] is meant
    assert 0.15 * 600 < t5 < 0.4 * 600
    assert clip > 0.97 * 600


def test_an_edit_of_two_operations_applies_the_frame_last() -> None:
    by_name = {operation.name: operation for operation in OPERATIONS}
    picture = np.random.default_rng(0).random((64, 64, 3), np.float32)
    framed = Edit((by_name["border red"], by_name["black and white"])).exact(picture)
    assert framed[0, 0].tolist() == pytest.approx([1.0, 0.15, 0.15])
    assert np.ptp(framed[32, 32]) < 1e-6


def test_the_shipped_encoders_understand_what_others_write() -> None:
    """Without an edit: what each encoder makes of the held-out sentences."""
    encoders = _shipped_encoders()
    sentences = held_out_sentences()
    tokenizers = words.tokenizers(networks.SHIPPED)
    for seen in words.understood(encoders, tokenizers, [sentence for _, sentence, _ in sentences]):
        right = [one is meant for (_, _, meant), one in zip(sentences, seen, strict=True)]
        assert np.mean(right) >= 0.9


def _course(folder: Path, *, steps: int, anew: bool = True) -> Course:
    torch.manual_seed(0)
    return Course(folder, "line", {"line": torch.nn.Linear(2, 1)}, rate=0.1, steps=steps, anew=anew)


def _ran(course: Course) -> torch.Tensor:
    line = course.networks["line"]
    course.run(lambda step: (line(torch.tensor([1.0, float(step % 3)])) - step % 3).square().sum(), Limits())
    return torch.cat([value.detach().flatten() for value in line.parameters()])


def test_a_course_goes_on_where_it_stopped(tmp_path: Path) -> None:
    _ran(_course(tmp_path, steps=3))
    resumed = _course(tmp_path, steps=6)
    assert resumed.step == 3
    seen: list[int] = []
    resumed.run(lambda step: (seen.append(step), resumed.networks["line"](torch.ones(2)).sum())[1], Limits())
    assert seen == [3, 4, 5]


def test_a_course_remembers_what_it_began_with(tmp_path: Path) -> None:
    assert begun_anew(tmp_path, "line", asked=True)
    _ran(_course(tmp_path, steps=1, anew=True))
    assert begun_anew(tmp_path, "line", asked=False)
    _ran(_course(tmp_path / "other", steps=1, anew=False))
    with pytest.raises(ValueError, match="another folder"):
        begun_anew(tmp_path / "other", "line", asked=True)


def test_runs_with_other_seeds_are_averaged(tmp_path: Path) -> None:
    def run(name: str, value: float) -> Path:
        course = Course(tmp_path / name, "words", {"one": torch.nn.Linear(2, 2)}, rate=1e-3, steps=1, anew=False)
        for tensor in course._average.values():
            tensor.fill_(value)
        course.save()
        return tmp_path / name

    first, others = run("a", 1.0), [run("b", 4.0), run("c", 7.0)]
    course = Course(first, "words", {"one": torch.nn.Linear(2, 2)}, rate=1e-3, steps=1, anew=False)
    course.averaged(*others)
    for parameter in course.networks["one"].parameters():
        torch.testing.assert_close(parameter.data, torch.full_like(parameter, 4.0))
