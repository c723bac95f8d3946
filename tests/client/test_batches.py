"""`darkroom batches`: edits are handed to the service, which runs them by itself, and results are saved when they are there."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from darkroom import Client, RefusedError, batches, handover, tables
from infra import embedded
from tests.client.test_command_line import Run, run  # noqa: F401  (a fixture)
from tests.conftest import PHOTOGRAPH, TENANTS, eventually


def _rows(folder: Path, *rows: dict[str, object]) -> Path:
    Image.open(PHOTOGRAPH).resize((160, 96)).save(folder / "small.png")
    file = folder / "edits.jsonl"
    file.write_text("\n".join(json.dumps({"image": "small.png", "prompt": "x", **row}) for row in rows))
    return file


def _submitted(run: Run, file: Path, *more: str) -> dict[str, object]:  # noqa: F811
    done = run("batches", "submit", str(file), "-m", "quick", "--json", *more)
    assert done.returncode == 0, done.stderr
    batch: dict[str, object] = json.loads(done.stdout)
    return batch


def _status(run: Run, batch: dict[str, object]) -> str:  # noqa: F811
    shown: str = json.loads(run("batches", "show", str(batch["batch_id"]), "--json").stdout)["status"]
    return shown


def test_edits_are_handed_over_and_results_saved(run: Run, tmp_path: Path) -> None:  # noqa: F811
    file = _rows(
        tmp_path,
        {"custom_id": "a b", "seed": 1},
        {"custom_id": "a_b", "seed": 2, "out": "other"},
        {"custom_id": "manifest"},
    )
    batch = _submitted(run, file, "--name", "three")
    again = _submitted(run, file, "--name", "three")
    assert again["batch_id"] == batch["batch_id"], "the same edits are the same batch"
    done = run("batches", "save", str(batch["batch_id"]), "-o", "out")
    assert (done.returncode, "3: 3 succeeded" in done.stdout) == (0, True), done.stderr
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "a_b-2.webp", "a_b.webp", "manifest-3.webp", "manifest.csv", "manifest.jsonl",
    ]  # fmt: skip
    with (tmp_path / "out" / "manifest.csv").open(newline="") as lines:
        assert [(one["custom_id"], one["seed"]) for one in csv.DictReader(lines)][:2] == [("a b", "1"), ("a_b", "2")]
    with Image.open(tmp_path / "out" / "a_b.webp") as result:
        assert result.width > 1.4 * result.height, "the input's shape, as `edit` gives it"
    listed = run("batches", "list").stdout
    assert f"{batch['batch_id']}\tthree\tcompleted\t3 succeeded" in listed
    assert _status(run, batch) == "completed"


def test_saving_goes_on_where_it_was_stopped(run: Run, tmp_path: Path) -> None:  # noqa: F811
    batch = _submitted(run, _rows(tmp_path, *({"custom_id": str(n)} for n in range(3))))
    assert run("batches", "save", str(batch["batch_id"]), "-o", "out").returncode == 0
    out = tmp_path / "out"
    (out / "0.webp").write_bytes(b"what is there stays")
    (out / "1.webp").rename(out / "1.webp.part")
    assert run("batches", "save", str(batch["batch_id"]), "-o", "out").returncode == 0
    assert (out / "0.webp").read_bytes() == b"what is there stays"
    assert (out / "1.webp").stat().st_size > 100
    assert "nothing had failed" in run("batches", "retry", str(batch["batch_id"])).stdout


def test_results_are_saved_beside_nothing_else(run: Run, tmp_path: Path) -> None:  # noqa: F811
    first = _submitted(run, _rows(tmp_path, {"custom_id": "a", "seed": 1}))
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"an original")
    for folder in ("photos", "out"):
        done = run("batches", "save", str(first["batch_id"]), "-o", folder)
        assert done.returncode == (2 if folder == "photos" else 0), done.stderr
    assert sorted(file.name for file in photos.iterdir()) == ["a.jpg"]
    second = _submitted(run, _rows(tmp_path, {"custom_id": "a", "seed": 2}))
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    done = run("batches", "save", str(second["batch_id"]), "-o", "out")
    assert (done.returncode, "choose another folder" in " ".join(done.stderr.split())) == (2, True)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before


def test_a_line_that_is_no_edit_is_told_and_the_others_run(run: Run, tmp_path: Path) -> None:  # noqa: F811
    file = _rows(tmp_path, {"custom_id": "good"}, {"custom_id": "bad", "seed": -1})
    done = run("batches", "submit", str(file), "-m", "quick")
    assert done.returncode == 1
    assert done.stderr.startswith("bad: seed")
    _, batch_id = done.stdout.splitlines()[0].split()
    done = run("batches", "save", batch_id, "-o", "out")
    assert (done.returncode, "2: 1 refused, 1 succeeded" in done.stdout) == (1, True)
    assert (tmp_path / "out" / "good.webp").is_file()


def test_a_batch_is_cancelled(run: Run, tmp_path: Path) -> None:  # noqa: F811
    rows = _rows(tmp_path, *({"custom_id": str(n), "model": "slower"} for n in range(4)))
    batch = _submitted(run, rows)
    assert run("batches", "cancel", str(batch["batch_id"])).returncode == 0
    done = run("batches", "save", str(batch["batch_id"]), "-o", "out", "--json")
    assert (done.returncode, json.loads(done.stdout)["status"]) == (1, "cancelled")


def test_what_failed_is_queued_again(run: Run, tmp_path: Path) -> None:  # noqa: F811
    rows = _rows(tmp_path, {"custom_id": "away", "image": "http://127.0.0.1:1/x.png"})
    batch = _submitted(run, rows)
    done = run("batches", "save", str(batch["batch_id"]), "-o", "out")
    assert (done.returncode, "1: 1 failed" in done.stdout) == (1, True)
    again = run("batches", "retry", str(batch["batch_id"]))
    assert (again.returncode, "1 queued again" in again.stdout) == (0, True)
    assert _status(run, batch) == "running"
    eventually(lambda: _status(run, batch) == "completed")


def test_another_body_under_the_same_key_is_refused(run: Run, tmp_path: Path) -> None:  # noqa: F811
    _submitted(run, _rows(tmp_path, {"custom_id": "a"}), "--idempotency-key", "one")
    done = run("batches", "submit", str(_rows(tmp_path, {"custom_id": "b"})), "-m", "quick", "--idempotency-key", "one")
    assert done.returncode == 3
    assert "idempotency" in done.stderr


def test_a_manifest_is_not_there_before_the_end(stack: embedded.Stack) -> None:
    with Client(stack.url, TENANTS["frank"]) as client:
        with pytest.raises(ValueError, match="is running, and its manifest is not there yet"):
            handover.manifest(client, {"batch_id": "b", "status": "running", "results": None})
        with pytest.raises(RefusedError):
            client.fetch(f"{stack.url}/v1/stored/nothing")


def test_the_table_of_a_folder_has_what_earlier_batches_left_there(tmp_path: Path) -> None:
    rows = [tables.Row(custom_id=name, image=None, parameters={"prompt": name}) for name in ("first", "second")]
    for row in rows:
        with batches.Manifest.opened(tmp_path) as manifest:
            manifest.note(row, status="succeeded")
            manifest.write_csv([row])
    with (tmp_path / "manifest.csv").open(newline="") as lines:
        assert [line["custom_id"] for line in csv.DictReader(lines)] == ["first", "second"]
