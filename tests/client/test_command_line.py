"""The `darkroom` command as people type it."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from darkroom.cli import main
from infra import embedded
from tests.conftest import PHOTOGRAPH, TENANTS, Tenant, eventually
from tests.faults.oracle.proxy import Proxy

Run = Callable[..., "Done"]

COMMAND = str(Path(sys.executable).parent / "darkroom")


def _environment(stack: embedded.Stack, **changes: str) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
    nowhere = str(stack.options.data_dir / "no-such-file")
    own = {"DARKROOM_URL": stack.url, "DARKROOM_API_KEY": TENANTS["frank"], "DARKROOM_CONFIG_FILE": nowhere}
    return {**plain, **own, "COLUMNS": "80", **changes}


@pytest.fixture
def frank(stack: embedded.Stack) -> Tenant:
    return Tenant(stack.url, "frank", TENANTS["frank"])


@dataclass(frozen=True)
class Done:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(
    stack: embedded.Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs the command in this process, which starts sooner than another one."""
    for name in [name for name in os.environ if name.startswith("DARKROOM_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def one(*arguments: str, **changes: str) -> Done:
        with monkeypatch.context() as patch:
            for name, value in {**_environment(stack), **changes}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["darkroom", *arguments])
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                main()
            told = capsys.readouterr()
        return Done(returncode=int(ended.value.code or 0), stdout=told.out, stderr=told.err)

    return one


def test_an_edit_is_saved_in_the_format_that_its_name_says(run: Run, tmp_path: Path) -> None:
    done = run("edit", str(PHOTOGRAPH), "make it sepia", "-m", "quick", "-o", "a.png", "--seed", "7")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a.png\n", "")
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"
        assert image.width == image.height, "as the photograph"


def test_programs_get_json_and_the_picture_goes_to_standard_output(
    run: Run, stack: embedded.Stack, tmp_path: Path
) -> None:
    told = json.loads(run("edit", str(PHOTOGRAPH), "x", "-m", "quick", "--json").stdout)
    assert (tmp_path / told["saved"]).is_file()
    command = [COMMAND, "edit", str(PHOTOGRAPH), "x", "-m", "quick", "--out", "-"]
    raw = subprocess.run(command, env=_environment(stack), cwd=tmp_path, check=True, capture_output=True)
    assert raw.stdout[8:12] == b"WEBP"
    again = run("download", told["generation_id"], "-o", "b.webp")
    assert again.stdout == "b.webp\n"
    assert (tmp_path / "b.webp").read_bytes() == (tmp_path / told["saved"]).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("edit", "{photo}", "x", "-o", "/nodir/x.png"), 2, "/nodir is no folder"),
        (("edit", "{photo}", "x", "-o", "x.gif"), 2, "ends in .webp, .jpg or .png"),
        (("edit", "{photo}", "x", "-o", "x.png", "--format", "jpg"), 2, "--format is jpg"),
        (("edit", "{photo}", "x", "--size", "big"), 2, "such as 1024x768"),
        (("edit", "{photo}", "x", "-o", "{photo}"), 2, "would replace the picture itself"),
        (("edit", "{photo}", "x", "--set", "seed"), 2, "name=value"),
        (("edit", "nowhere.png", "x"), 2, "nowhere.png"),
        (("edit", "{photo}", "x", "-m", "nope"), 3, "darkroom models"),
        (("edit", "{photo}", "x", "-m", "quick", "--seed", "-1"), 3, "seed"),
        (("edit", "http://127.0.0.1:1/x.png", "x", "-m", "quick"), 1, "input_unreachable"),
        (("get", "nope"), 3, "could not be found"),
        (("get", "../models"), 3, "resource_not_found"),
        (("probe", "nope"), 2, "nope is no model here"),
        (("usage", "--month", "2026-13"), 2, "such as 2026-11"),
        (("list", "--status", "odd"), 3, "status"),
        (("erase",), 2, "--everything"),
        (("keys", "list"), 3, "scope admin"),
        (("batch", "nowhere.csv", "-o", "x"), 2, "nowhere.csv"),
        (("frobnicate",), 2, "frobnicate"),
        (("list", "--nope"), 2, "--nope"),
        (("list", "-n", "many"), 2, "--limit"),
    ],
)
def test_what_goes_wrong_is_a_sentence_and_an_exit_code(
    run: Run, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = run(*(one.replace("{photo}", str(PHOTOGRAPH)) for one in arguments))
    assert (done.returncode, done.stdout) == (code, "")
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_an_address_or_a_key_that_is_wrong_comes_with_what_to_do(run: Run, tmp_path: Path) -> None:
    nobody = run("list", DARKROOM_URL="http://127.0.0.1:9")
    assert nobody.returncode == 4
    assert "http://127.0.0.1:9: connection refused" in nobody.stderr
    assert "make up" in nobody.stderr
    assert run("list", DARKROOM_API_KEY="schlüssel-mit-umlaut").returncode == 2
    stranger = run("list", DARKROOM_API_KEY="k" * 20)
    assert stranger.returncode == 3
    assert "unknown, expired or revoked" in " ".join(stranger.stderr.split())
    (tmp_path / ".data").mkdir()
    (tmp_path / ".data" / "client.json").write_text("{")
    spoiled = run("list", DARKROOM_URL="", DARKROOM_API_KEY="")
    assert spoiled.returncode == 2
    assert "client.json cannot be read" in spoiled.stderr


def test_profiles_name_services(run: Run, stack: embedded.Stack, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        f'default = "here"\n[profiles.here]\nurl = "{stack.url}"\nkey = "{TENANTS["frank"]}"\n[profiles.bad]\n'
    )
    known = {"DARKROOM_URL": "", "DARKROOM_API_KEY": "", "DARKROOM_CONFIG_FILE": str(file)}
    assert run("usage", **known).returncode == 0
    assert run("--profile", "here", "usage", **known).returncode == 0
    for name, said in (("bad", "needs a url"), ("other", "has no profile other; it has here, bad")):
        done = run("--profile", name, "usage", **known)
        assert done.returncode == 2
        assert said in " ".join(done.stderr.split())
    file.write_text("[")
    assert run("usage", **known).returncode == 2


def test_a_reader_who_has_seen_enough_is_no_fault(stack: embedded.Stack, tmp_path: Path) -> None:
    shell = f"{COMMAND} models --json | head -c 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", shell], env=_environment(stack), cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[0\n", "")


@pytest.fixture
def between(stack: embedded.Stack) -> Iterator[Proxy]:
    """A network between the command and the service."""
    proxy = Proxy(int(stack.url.rpartition(":")[2]))
    yield proxy
    proxy.close()


@contextlib.contextmanager
def _editing(stack: embedded.Stack, proxy: Proxy, folder: Path, prompt: str) -> Iterator["subprocess.Popen[str]"]:
    command = [COMMAND, "edit", str(PHOTOGRAPH), prompt, "-m", "slower", "--steps", "50"]
    # Tests that run in the background have Ctrl-C ignored, which processes inherit.
    with subprocess.Popen(
        ["env", "--default-signal=INT", *command],
        env=_environment(stack, DARKROOM_URL=f"http://127.0.0.1:{proxy.port}"),
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


def test_control_c_cancels_the_edit(stack: embedded.Stack, between: Proxy, frank: Tenant, tmp_path: Path) -> None:
    with _editing(stack, between, tmp_path, "stop me") as process:
        found = eventually(lambda: frank.get("/api/ai/queue?search=stop me&status=processing").json()["generations"])
        process.send_signal(signal.SIGINT)
        told = _told(process)
    assert f"cancelled {found[0]['generation_id']}" in told
    assert frank.finished(found[0]["generation_id"])["status"] == "cancelled"


def test_control_c_before_the_answer_has_come_cancels_what_was_accepted(
    stack: embedded.Stack, between: Proxy, frank: Tenant, tmp_path: Path
) -> None:
    between.hold_answers(True)
    with _editing(stack, between, tmp_path, "stop me early") as process:
        found = eventually(lambda: frank.get("/api/ai/queue?search=stop me early").json()["generations"])
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("stopping when the service has answered")
        between.hold_answers(False)
        told = _told(process)
    assert f"cancelled {found[0]['generation_id']}" in told
    assert frank.finished(found[0]["generation_id"])["status"] == "cancelled"


def test_control_c_twice_stops_though_nobody_answers(
    stack: embedded.Stack, between: Proxy, frank: Tenant, tmp_path: Path
) -> None:
    between.hold_answers(True)
    with _editing(stack, between, tmp_path, "nobody answers") as process:
        eventually(lambda: frank.get("/api/ai/queue?search=nobody answers").json()["generations"])
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert "Ctrl-C again stops at once" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert _told(process) == "darkroom: interrupted\n"


def _told(process: "subprocess.Popen[str]") -> str:
    """The rest of what a command that was interrupted says."""
    assert process.stderr is not None
    told = process.stderr.read()
    assert process.wait(30) == 130
    assert "Traceback" not in told
    return told


def test_cancelling_says_what_came_of_it(run: Run, frank: Tenant, tiny: str) -> None:
    done = frank.enqueue(tiny)
    # However busy this machine is, the second is not over by then.
    ahead, under_way = (frank.enqueue(tiny, model="slower") for _ in range(2))
    frank.finished(done)
    told = run("cancel", done, under_way).stdout.splitlines()
    assert told == [f"{done}: it was over already (succeeded)", f"{under_way}: cancelled"]
    run("cancel", ahead)


def test_what_is_listed_can_be_read_by_programs(run: Run, frank: Tenant, tiny: str) -> None:
    id_ = frank.enqueue(tiny, prompt="three\twords here")
    frank.finished(id_)
    line = run("list", "-n", "1").stdout.rstrip("\n").split("\t")
    assert (line[0], line[1], line[5]) == (id_, "succeeded", "three words here")
    assert json.loads(run("list", "-n", "1", "--json").stdout)["generation_id"] == id_
    assert json.loads(run("get", id_).stdout)["status"] == "succeeded"
    rows = list(csv.reader(run("usage").stdout.splitlines()))
    assert rows[0] == ["month", "model", "generations", "megapixels", "gpu_seconds", "cost_usd"]


@pytest.mark.parametrize(
    "command", ["models", "fleet", "doctor", "usage", "webhooks list", "webhooks secret", "batches list"]
)
def test_every_answer_is_there_as_json(run: Run, command: str) -> None:
    done = run(*command.split(), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) is not None


def test_every_command_has_a_help_that_fits_eighty_columns(run: Run) -> None:
    names = [
        "edit", "download", "cancel", "replay", "retry", "erase", "verify", "batch", "get", "list", "watch", "models", "fleet",
        "start", "estimate", "plan", "probe", "usage", "webhooks", "keys", "doctor", "open", "webhooks ping", "keys create",
        "batches", "batches submit", "batches save",
    ]  # fmt: skip
    for name in names:
        done = run(*name.split(), "--help")
        assert done.returncode == 0, name
        assert max(map(len, done.stdout.splitlines())) <= 80, name
    top = run("--help").stdout
    assert all(name in top for name in names if " " not in name)


def _table(folder: Path, count: int) -> Path:
    Image.open(PHOTOGRAPH).resize((64, 64)).save(folder / "small.png")
    file = folder / "edits.csv"
    rows = [f"row-{n},small.png,make it sepia,{n}" for n in range(count)]
    file.write_text("custom_id,image,prompt,seed\n" + "\n".join(rows) + "\n")
    return file


def _manifest(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_batch_that_is_killed_goes_on_and_runs_nothing_twice(
    run: Run, stack: embedded.Stack, frank: Tenant, tmp_path: Path
) -> None:
    table, out = _table(tmp_path, 40), tmp_path / "results"
    command = [COMMAND, "batch", str(table), "-o", str(out), "-m", "quick", "-c", "4"]
    for part in (6, 18):
        with subprocess.Popen(command, env=_environment(stack), cwd=tmp_path) as process:
            eventually(lambda part=part: len(list(out.glob("*.webp"))) >= part)
            process.kill()
    done = run("batch", str(table), "-o", str(out), "-m", "quick", "-c", "4")
    assert (done.returncode, done.stdout.split(";")[0]) == (0, "40 rows: 40 succeeded")
    entries = _manifest(out)
    assert [one["custom_id"] for one in entries] == [f"row-{n}" for n in range(40)]
    assert [one["seed"] for one in entries] == [str(n) for n in range(40)]
    assert all((out / one["file"]).is_file() for one in entries)
    listed = frank.get("/api/ai/queue?status=all&limit=200").json()["generations"]
    mine = [one["custom_id"] for one in listed if str(one.get("custom_id", "")).startswith("row-")]
    assert sorted(mine) == sorted({one["custom_id"] for one in entries}), "each ran once"
    began = time.monotonic()
    assert run("batch", str(table), "-o", str(out), "-m", "quick").returncode == 0
    assert time.monotonic() - began < 10
    assert len(frank.get("/api/ai/queue?status=all&limit=200").json()["generations"]) == len(listed)


def test_rows_that_fail_are_told_and_run_again_when_asked_for(run: Run, tmp_path: Path) -> None:
    rows = [
        {"custom_id": "good", "image": str(PHOTOGRAPH), "prompt": "x"},
        {"custom_id": "bad", "image": "http://127.0.0.1:1/x.png", "prompt": "x"},
        {"custom_id": "worse", "image": str(PHOTOGRAPH), "prompt": "x", "seed": -1},
    ]
    file = tmp_path / "edits.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    done = run("batch", str(file), "-o", "out", "-m", "quick")
    assert (done.returncode, done.stdout.split(";")[0]) == (1, "3 rows: 1 failed, 1 refused, 1 succeeded")
    first = {one["custom_id"]: one for one in _manifest(tmp_path / "out")}
    assert "input_unreachable" in first["bad"]["error"]
    assert "seed" in first["worse"]["error"]
    assert run("batch", str(file), "-o", "out", "-m", "quick").returncode == 1, "they stay as they are"
    again = json.loads(run("batch", str(file), "-o", "out", "-m", "quick", "--retry-failed", "--json").stdout)
    assert again["outcomes"] == {"succeeded": 1, "failed": 1, "refused": 1}
    assert {one["custom_id"]: one for one in _manifest(tmp_path / "out")}["bad"]["generation_id"] != first["bad"][
        "generation_id"
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"promt": "warm", "image": "x.png"}', "row 1: prompt is missing beside promt, image; --prompt"),
        ("{}", "row 1: prompt is missing beside nothing; --prompt"),
        (f'{{"prompt": "x", "seed": {"9" * 5000}}}', "line 1: Exceeds the limit"),
        ('{"image": "nowhere.png", "prompt": "x"}', "there is no file nowhere.png"),
        ('{"prompt": "x"', "line 1"),
        ("[]", "a row is an object"),
        ("", "has no edits"),
        ('{"custom_id": "a", "prompt": "x"}\n{"custom_id": "a", "prompt": "y"}', "'a' stands there twice"),
    ],
)
def test_a_table_that_is_wrong_is_refused_before_anything_runs(
    run: Run, tmp_path: Path, content: str, said: str
) -> None:
    file = tmp_path / "edits.jsonl"
    file.write_text(content)
    done = run("batch", str(file), "-o", "out", "-m", "quick")
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())


def test_every_row_of_a_table_that_is_wrong_is_named(run: Run, tmp_path: Path) -> None:
    rows = [
        '{"custom_id": "a"}',
        '{"prompt": "x"',
        '{"custom_id": "a", "prompt": "x"}',
        '{"image": "none.png", "prompt": "x"}',
    ]
    (tmp_path / "edits.jsonl").write_text("\n".join([*rows, *['{"image": "none.png"}'] * 30]))
    done = run("batch", "edits.jsonl", "-o", "out", "-m", "quick")
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    for fault in (
        "row 1: prompt is missing",
        "line 2, column 15:",
        "row 4: there is no file none.png",
        "... and 13 more",
    ):
        assert fault in said
    assert "row 2:" not in said, "its line was named"


def test_a_folder_is_a_batch_of_its_pictures(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "a.jpg", "notes.txt"):
        (folder / name).write_bytes(PHOTOGRAPH.read_bytes())
    done = run("batch", "photos", "-o", "out", "-m", "quick", "--prompt", "x")
    assert done.returncode == 0, done.stderr
    assert sorted(one["custom_id"] for one in _manifest(tmp_path / "out")) == ["a.jpg", "a.png"]
    for picture in folder.iterdir():
        assert picture.read_bytes() == PHOTOGRAPH.read_bytes()


def test_a_batchs_results_never_take_the_place_of_its_pictures(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(PHOTOGRAPH.read_bytes())
    (tmp_path / "edits.jsonl").write_text('{"image": "photos/a.jpg", "prompt": "x", "out": "a.jpg"}')
    for source in ("photos", "edits.jsonl"):
        done = run("batch", source, "-o", "photos", "-m", "quick", "--prompt", "x")
        assert (done.returncode, "--out" in done.stderr) == (2, True), done.stderr
    assert sorted(one.name for one in folder.iterdir()) == ["a.jpg"]
    assert (folder / "a.jpg").read_bytes() == PHOTOGRAPH.read_bytes()
