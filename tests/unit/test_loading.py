"""Weights are loaded whole or refused by name, and what was loaded is known by its revision."""

import json
import os
import re
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from transformers import T5EncoderModel

from storage import garbage
from storage.contracts import errors, plans
from storage.contracts.weights import Weights
from workers.pipelines import execution, flux2, klein, kontext, revisions, small

FAMILIES: dict[str, Any] = {"small-kontext": kontext, "small-flux2": flux2, "small-klein": klein}

PARTS = [
    ("small-kontext", "transformer", "transformer_blocks.0.ff.net.2.weight"),
    ("small-kontext", "text_encoder", "encoder.layers.1.mlp.fc1.weight"),
    ("small-kontext", "text_encoder_2", "encoder.block.0.layer.0.SelfAttention.q.weight"),
    ("small-kontext", "vae", "decoder.conv_in.bias"),
    ("small-flux2", "transformer", "single_transformer_blocks.1.attn.to_out.weight"),
    ("small-flux2", "text_encoder", "layers.2.mlp.down_proj.weight"),
    ("small-flux2", "vae", "bn.running_var"),
    ("small-klein", "transformer", "proj_out.weight"),
    ("small-klein", "text_encoder", "layers.0.self_attn.k_norm.weight"),
    ("small-klein", "vae", "encoder.conv_out.weight"),
]
every_part = pytest.mark.parametrize(("name", "part", "key"), PARTS, ids=[f"{name}-{part}" for name, part, _ in PARTS])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    small.write(folder)
    return folder


@pytest.fixture
def weights(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    folder = tmp_path / "where the weights lie"
    shutil.copytree(written, folder)
    return folder


def _load(weights: Path, name: str, plan: plans.Plan = plans.RESIDENT, **more: Any) -> Any:
    layers = () if name == "small-kontext" else small.TEXT_LAYERS
    described = Weights(source=name, name=name, licence="none", text_layers=layers, **more)
    return FAMILIES[name].load(described, weights / name, "cpu", plan, lambda share: None)


@pytest.mark.parametrize("name", FAMILIES)
def test_of_a_model_that_is_closed_nothing_stays_in_memory(weights: Path, name: str) -> None:
    """Though garbage collections leave out what was loaded (`storage.garbage`)."""
    pipeline = _load(weights, name)
    # A circle, as hooks and compiled layers make them.
    pipeline.pipe.transformer.circle = [pipeline.pipe.transformer]
    parts = [
        weakref.ref(pipeline.pipe),
        weakref.ref(pipeline.pipe.transformer),
        weakref.ref(pipeline.pipe.text_encoder),
    ]
    garbage.settle()
    pipeline.close()
    assert [part() for part in parts] == [None, None, None]


def _refusal(weights: Path, name: str, **more: Any) -> str:
    with pytest.raises(errors.ModelUnavailableError) as refused:
        _load(weights, name, **more)
    assert str(weights) not in refused.value.message
    return refused.value.message


def _edit(part: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Rewrite a part's only file of weights."""
    (file,) = part.glob("*.safetensors")
    save_file(change(load_file(file)), file, {"format": "pt"})


def _full(state: dict[str, torch.Tensor], key: str) -> str:
    (full,) = (one for one in state if one.endswith(key))
    return full


@every_part
def test_a_weight_that_is_missing_is_named_with_its_part(weights: Path, name: str, part: str, key: str) -> None:
    _edit(weights / name / part, lambda state: {k: v for k, v in state.items() if k != _full(state, key)})
    message = _refusal(weights, name)
    assert message.startswith(f"{name}: {part} lacks 1 weight: ")
    assert message.endswith(key)


def test_of_many_missing_weights_the_first_are_named(weights: Path) -> None:
    _edit(weights / "small-klein" / "transformer", lambda state: {k: v for k, v in state.items() if ".attn." not in k})
    message = _refusal(weights, "small-klein")
    assert message.startswith("small-klein: transformer lacks 20 weights: single_transformer_blocks.0.attn.")
    assert message.count("single_transformer_blocks") == 3
    assert message.endswith(", …")


@every_part
def test_a_weight_of_another_shape_is_named_with_its_part(weights: Path, name: str, part: str, key: str) -> None:
    _edit(weights / name / part, lambda state: {**state, _full(state, key): torch.zeros(3, 5)})
    message = _refusal(weights, name)
    assert message.startswith(f"{name}: {part}")
    assert key in message


@every_part
def test_a_truncated_file_is_named_by_its_part(weights: Path, name: str, part: str, key: str) -> None:
    (file,) = (weights / name / part).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-200])
    assert _refusal(weights, name).startswith(f"{name}: {part}")


def _sharded(weights: Path, name: str, part: str) -> list[Path]:
    """The part anew, in several files."""
    folder = weights / name / part
    for file in folder.glob("*.safetensors"):
        file.unlink()
    getattr(small.built(name), part).save_pretrained(folder, max_shard_size="60KB")
    return sorted(folder.glob("*.safetensors"))


sharded_parts = pytest.mark.parametrize(
    ("name", "part"),
    [("small-kontext", "transformer"), ("small-kontext", "text_encoder_2"), ("small-flux2", "text_encoder")],
)


@sharded_parts
def test_weights_in_several_files_are_read(weights: Path, name: str, part: str) -> None:
    assert len(_sharded(weights, name, part)) > 1
    _load(weights, name)


@sharded_parts
def test_a_file_that_the_index_names_and_that_is_not_there_is_said_to_be(weights: Path, name: str, part: str) -> None:
    gone = _sharded(weights, name, part)[0]
    gone.unlink()
    message = _refusal(weights, name)
    assert message.startswith(f"{name}: {part}")
    assert gone.name in message


@sharded_parts
def test_a_weight_that_the_index_names_and_its_file_lacks_is_named(weights: Path, name: str, part: str) -> None:
    file = _sharded(weights, name, part)[0]
    state = load_file(file)
    key = next(one for one in state if "layers.3" not in one and "lm_head" not in one)
    save_file({k: v for k, v in state.items() if k != key}, file, {"format": "pt"})
    message = _refusal(weights, name)
    assert message.startswith(f"{name}: {part} lacks 1 weight: ")
    assert message.endswith(key.rpartition("model.")[2])


def test_what_is_left_out_on_purpose_is_not_missing(weights: Path) -> None:
    """No later layers, final norm, LM head or vision tower in the file either: a text encoder as others prune it."""
    unread = re.compile(r"layers\.3\.|lm_head|(^|\.)model\.norm\.|vision_tower|multi_modal_projector")
    for name in ("small-flux2", "small-klein"):
        part = weights / name / "text_encoder"
        _edit(part, lambda state: {key: value for key, value in state.items() if not unread.search(key)})
        _load(weights, name)


def test_without_pruning_the_same_weights_are_missing(weights: Path) -> None:
    _edit(
        weights / "small-flux2" / "text_encoder",
        lambda state: {k: v for k, v in state.items() if "vision_tower.patch_conv" not in k},
    )
    _load(weights, "small-flux2")
    assert "text_encoder lacks 1 weight: " in _refusal(weights, "small-flux2", whole_text_encoder=True)


@pytest.mark.parametrize("kept", ["shared.weight", "encoder.embed_tokens.weight"])
def test_of_tied_weights_one_is_enough(weights: Path, kept: str) -> None:
    _edit(
        weights / "small-kontext" / "text_encoder_2",
        lambda state: {
            **{k: v for k, v in state.items() if k not in {"shared.weight", "encoder.embed_tokens.weight"}},
            kept: state.get("shared.weight", state.get("encoder.embed_tokens.weight")),
        },
    )
    pipe = _load(weights, "small-kontext").pipe
    torch.testing.assert_close(
        pipe.text_encoder_2.shared.weight, small.built("small-kontext").text_encoder_2.shared.weight
    )


def test_a_language_model_head_tied_to_the_embeddings_is_not_missing(weights: Path) -> None:
    folder = weights / "small-flux2" / "text_encoder"
    config = json.loads((folder / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(config))
    _edit(folder, lambda state: {k: v for k, v in state.items() if "lm_head" not in k})
    _load(weights, "small-flux2", whole_text_encoder=True)


def test_weights_that_the_model_does_not_know_do_no_harm(weights: Path) -> None:
    extra = {"text_model.embeddings.position_ids": torch.arange(77)[None], "training.step": torch.ones(1)}
    _edit(weights / "small-kontext" / "text_encoder", lambda state: {**state, **extra})
    _edit(weights / "small-kontext" / "transformer", lambda state: {**state, "training.step": torch.ones(1)})
    _load(weights, "small-kontext")


def _raising(exc: BaseException) -> Callable[..., Any]:
    def raises(*_: object, **__: object) -> Any:
        raise exc

    return raises


UNEXPECTED = [
    ImportError("peft is not installed"), NotImplementedError("no copy out of meta tensor"), TypeError("no such argument"),
    AssertionError("no"), IndexError("no"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), MemoryError(), EOFError(),
]  # fmt: skip


@pytest.mark.parametrize("exc", UNEXPECTED, ids=lambda exc: type(exc).__name__)
@pytest.mark.parametrize("kind", [FluxTransformer2DModel, T5EncoderModel])
def test_whatever_goes_wrong_in_reading_is_the_models_fault(
    weights: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Any], exc: Exception
) -> None:
    """So the residency remembers it; anything else would be tried again with every claim."""
    monkeypatch.setattr(kind, "from_pretrained", _raising(exc))
    assert _refusal(weights, "small-kontext").startswith("small-kontext: ")


@pytest.mark.parametrize("exc", UNEXPECTED[:3], ids=lambda exc: type(exc).__name__)
def test_whatever_goes_wrong_in_placing_is_too(weights: Path, monkeypatch: pytest.MonkeyPatch, exc: Exception) -> None:
    monkeypatch.setattr(execution, "applied", _raising(exc))
    assert _refusal(weights, "small-kontext").startswith("small-kontext: ")


def test_a_class_that_is_not_installed_is_named(weights: Path) -> None:
    index = weights / "small-kontext" / "model_index.json"
    index.write_text(index.read_text().replace("T5EncoderModel", "NoSuchModel"))
    assert "NoSuchModel" in _refusal(weights, "small-kontext")


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (torch.OutOfMemoryError("no memory"), errors.OutOfMemoryError),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), errors.OutOfMemoryError),
        (torch.AcceleratorError("an illegal memory access"), errors.GpuFaultError),
        (errors.CancelledError("enough"), errors.CancelledError),
        (errors.GpuFaultError("gone"), errors.GpuFaultError),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_faults_of_the_gpu_stay_what_they_are(
    weights: Path, monkeypatch: pytest.MonkeyPatch, exc: Exception, expected: type[errors.DarkroomError]
) -> None:
    monkeypatch.setattr(FluxTransformer2DModel, "from_pretrained", _raising(exc))
    with pytest.raises(expected):
        _load(weights, "small-kontext")


def test_paths_of_this_machine_are_not_told(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = OSError(
        "cannot read '/root/.cache/huggingface/hub/models--a--b/blobs/123': see https://huggingface.co/docs"
    )
    monkeypatch.setattr(diffusers.AutoencoderKL, "from_pretrained", _raising(hidden))
    message = _refusal(weights, "small-kontext")
    assert "/root" not in message
    assert "'123'" in message
    assert "https://huggingface.co/docs" in message


def test_a_folders_fingerprint_is_of_its_weights(weights: Path, tmp_path: Path) -> None:
    first = _load(weights, "small-klein").facts.revision
    assert first.startswith("sha256:")
    assert len(first) == len("sha256:") + 16
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(weights, elsewhere)
    (elsewhere / "small-klein" / "README.md").write_text("new")
    # The hub's repositories hold the same weights once more as one file, which is not read.
    save_file({"a": torch.zeros(1)}, elsewhere / "small-klein" / "flux-2-klein.safetensors")
    assert _load(elsewhere, "small-klein").facts.revision == first
    _edit(elsewhere / "small-klein" / "vae", lambda state: {**state, "training.step": torch.ones(1)})
    assert _load(elsewhere, "small-klein").facts.revision != first


def test_a_fingerprint_is_taken_of_damaged_files_too(tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "a.safetensors").write_bytes(b"\xff" * 5)
    assert revisions.of_folder(tmp_path).startswith("sha256:")


FIRST, SECOND = "1" * 40, "2" * 40

LOADS_FROM_THE_HUB = """
import json, sys
from pathlib import Path
import diffusers
from storage.contracts import errors, plans
from storage.contracts.weights import Weights
from workers.pipelines import klein, small

main, (first, second) = Path(sys.argv[1]), sys.argv[2:]


def load(revision):
    weights = Weights(
        source="someone/small-klein", name="klein", licence="none", text_layers=small.TEXT_LAYERS, revision=revision
    )
    try:
        return klein.load(weights, None, "cpu", plans.RESIDENT, lambda share: None).facts.revision
    except errors.ModelUnavailableError as exc:
        return exc.message


told = {"main": load(None), "pinned": load(first), "unknown": load("3" * 40)}
read_index = diffusers.DiffusionPipeline.load_config.__func__


def pushed(cls, *args, **kwargs):
    index = read_index(cls, *args, **kwargs)
    main.write_text(second)
    return index


diffusers.DiffusionPipeline.load_config = classmethod(pushed)
told["pushed meanwhile"] = load(None)
print(json.dumps(told))
"""


@pytest.fixture
def hub_cache(written: Path, tmp_path: Path) -> Path:
    """Laid out as huggingface_hub keeps it: one whole commit, and one of which nothing but the index was fetched."""
    repository = tmp_path / "models--someone--small-klein"
    shutil.copytree(written / "small-klein", repository / "snapshots" / FIRST)
    (repository / "snapshots" / SECOND).mkdir()
    shutil.copy(written / "small-klein" / "model_index.json", repository / "snapshots" / SECOND)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(FIRST)
    return tmp_path


def test_the_commit_of_weights_from_the_hub_is_known_and_all_parts_are_of_it(hub_cache: Path) -> None:
    """With the real library, offline: what `main` stood for when the index was read is what all parts are read from."""
    main = hub_cache / "models--someone--small-klein" / "refs" / "main"
    environment = {**os.environ, "HF_HUB_CACHE": str(hub_cache), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", LOADS_FROM_THE_HUB, str(main), FIRST, SECOND],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    told = json.loads(ran.stdout.splitlines()[-1])
    assert (told["main"], told["pinned"], told["pushed meanwhile"]) == (FIRST, FIRST, FIRST)
    nowhere = "klein: there is no folder someone/small-klein below DARKROOM_WEIGHTS_DIR, and from the hub: "
    assert told["unknown"].startswith(nowhere)
    assert str(hub_cache) not in told["unknown"]
