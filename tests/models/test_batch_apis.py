"""The three batch APIs against the official clients, and against answers that nobody should send."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.loopback_batches import (
    ERROR,
    EXPIRED,
    INVALID,
    OK,
    Desk,
    serving_batches,
)  # fmt: skip
from tests.models.batches import (
    APIS,
    KEY,
    batch_key,  # noqa: F401  # for every test here
    body_for,
    endpoint_of,
    make,
    questions,
    run,
    told,
)
from tutelage.errors import ConfigError, TeacherError
from tutelage.models.base import AskAgain, Endpoint, Refused
from tutelage.models.batches import anthropic, base, gemini, openai
from tutelage.models.batches.opening import open_batches
from tutelage.models.batches.parts import raw_member
from tutelage.store.store import Store
from tutelage.wire.values import WireError


@pytest.mark.parametrize("api", APIS)
def test_a_batch_is_found_behind_others(api: str) -> None:
    async def find(since: datetime) -> str | None:
        async with open_batches(endpoint_of(desk, api)) as batches:
            return await batches.find("mine", since.isoformat(), 2, set())

    with serving_batches(Desk()) as desk:
        mine = desk.add(api, "mine", [(f"{number:064x}", body_for(api, "mine")) for number in range(2)])
        for number in range(5):  # newer, and in the way: pages are short
            desk.add(api, f"other {number}", [("0" * 64, body_for(api, "other"))])
        assert asyncio.run(find(mine.created)) == mine.id
        if api != "gemini":  # whose listing has no order
            assert asyncio.run(find(mine.created + timedelta(seconds=601))) is None


def test_a_line_without_end_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read() -> None:
        async with open_batches(endpoint_of(desk, "openai")) as batches:
            async for _ in batches.results(job.id):
                pass

    with serving_batches(Desk(polls_needed=1, echo="x" * 3_000_000)) as desk:
        job = desk.add("openai", "", [("0" * 64, body_for("openai", "question"))])
        asyncio.run(read())
        monkeypatch.setattr(base, "MOST_LINE_BYTES", 100)
        with pytest.raises(TeacherError, match="more than 100 bytes"):
            asyncio.run(read())


@pytest.mark.parametrize("api", APIS)
def test_the_key_is_sent_to_the_base_url_alone_and_written_nowhere(tmp_path: Path, api: str) -> None:
    desk = Desk(upload_host="http://elsewhere.invalid", echo=f"you said {KEY}")
    with serving_batches(desk), Store(tmp_path) as store:
        asking = make(desk, store, api)
        run(asking, questions(3))
        assert store.get(questions(1)[0].digest).answer.endswith("you said [redacted:BATCH_TEST_KEY]")
        desk.hook = lambda event: web.json_response({"error": {"message": f"bad {KEY}"}}, status=400)
        with pytest.raises(TeacherError, match=r"bad \[redacted") as refused:
            run(asking, questions(3, "another"))
        assert KEY not in str(refused.value)
        names = {"openai": "authorization", "anthropic": "x-api-key", "gemini": "x-goog-api-key"}
        assert all(KEY in headers[names[api]] for headers in desk.headers)
        assert KEY not in told(asking)
        assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_plug_ins_have_no_batch_api() -> None:
    with pytest.raises(ConfigError):
        open_batches(Endpoint("http://127.0.0.1:1", "loopback", "test", "m", "MIT", api="own"))


def test_the_official_openai_client_and_ours_agree() -> None:
    from openai import OpenAI

    with serving_batches(Desk(lambda text, nth: INVALID if text == "question 1" else OK)) as desk:
        client = OpenAI(base_url=f"{desk.base_url}/v1", api_key="k", max_retries=0)

        async def ours() -> list[bytes]:
            async with open_batches(endpoint_of(desk, "openai")) as batches:
                lines = [batches.line(f"{number:064x}", one) for number, one in enumerate(questions(3))]
                assert await batches.submit(lines, questions(1)[0], "a-token") == "batch_1"
                return lines

        lines = asyncio.run(ours())
        file = client.files.create(file=("x.jsonl", b"\n".join(lines)), purpose="batch")
        job = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"tutelage": "t"}
        )
        assert desk.files["file-1"].splitlines() == desk.files[file.id].splitlines()
        assert [one.id for one in client.batches.list()] == ["batch_2", "batch_1"]
        while job.status not in ("completed", "failed"):
            job = client.batches.retrieve(job.id)
        assert job.output_file_id and job.error_file_id and job.request_counts
        theirs = [json.loads(line) for line in client.files.content(job.output_file_id).text.splitlines()]

        async def read() -> dict[str, bytes]:
            async with open_batches(endpoint_of(desk, "openai")) as batches:
                assert await batches.find("t", datetime.now(UTC).isoformat(), 3, set()) == job.id
                return {line.custom_id: line.body async for line in batches.results(job.id) if line.status == 200}

        found = asyncio.run(read())
        assert {line["custom_id"]: line["response"]["body"] for line in theirs} == {
            custom_id: json.loads(body) for custom_id, body in found.items()
        }


def test_the_official_anthropic_client_and_ours_agree() -> None:
    from anthropic import Anthropic

    with serving_batches(Desk(lambda text, nth: EXPIRED if text == "question 1" else OK)) as desk:
        client = Anthropic(base_url=desk.base_url, api_key="k", max_retries=0)

        async def ours() -> None:
            async with open_batches(endpoint_of(desk, "anthropic")) as batches:
                lines = [batches.line(f"{number:064x}", one) for number, one in enumerate(questions(3))]
                assert await batches.submit(lines, questions(1)[0], "a-token") == "msgbatch_1"

        asyncio.run(ours())
        asked = [{"custom_id": one.custom_id, "params": one.body} for one in desk.jobs["msgbatch_1"].questions]
        job = client.messages.batches.create(requests=asked)  # type: ignore[arg-type]
        assert [one.body for one in desk.jobs[job.id].questions] == [one["params"] for one in asked]
        assert [one.id for one in client.messages.batches.list()] == ["msgbatch_2", "msgbatch_1"]
        while job.processing_status != "ended":
            job = client.messages.batches.retrieve(job.id)
        theirs = {line.custom_id: line.result.type for line in client.messages.batches.results(job.id)}

        async def read() -> dict[str, int]:
            async with open_batches(endpoint_of(desk, "anthropic")) as batches:
                return {line.custom_id: line.status async for line in batches.results(job.id)}

        assert theirs == {
            key: "succeeded" if status == 200 else "expired" for key, status in asyncio.run(read()).items()
        }


def test_the_official_gemini_client_and_ours_agree(tmp_path: Path) -> None:
    from google.genai import Client
    from google.genai.types import HttpOptions, UploadFileConfig

    with serving_batches(Desk(lambda text, nth: ERROR if text == "question 1" else OK)) as desk:
        client = Client(api_key="k", http_options=HttpOptions(base_url=desk.base_url, api_version="v1beta"))

        async def ours() -> list[bytes]:
            async with open_batches(endpoint_of(desk, "gemini")) as batches:
                lines = [batches.line(f"{number:064x}", one) for number, one in enumerate(questions(3))]
                assert await batches.submit(lines, questions(1)[0], "a-token") == "batches/1"
                return lines

        (tmp_path / "x.jsonl").write_bytes(b"\n".join(asyncio.run(ours())))
        file = client.files.upload(file=tmp_path / "x.jsonl", config=UploadFileConfig(mime_type="application/jsonl"))
        job = client.batches.create(model="m", src=file.name, config={"display_name": "t"})
        assert file.name and job.name
        assert desk.files["files/1"].splitlines() == desk.files[file.name].splitlines()
        assert {one.display_name for one in client.batches.list()} == {"a-token", "t"}
        while not job.done:
            job = client.batches.get(name=job.name)
        assert job.dest and job.dest.file_name
        theirs = [json.loads(line) for line in client.files.download(file=job.dest.file_name).splitlines()]

        async def read() -> dict[str, bytes]:
            async with open_batches(endpoint_of(desk, "gemini")) as batches:
                assert await batches.find("t", datetime.now(UTC).isoformat(), 3, set()) == job.name
                return {line.custom_id: line.body async for line in batches.results(str(job.name))}

        assert {line["key"]: line.get("response", line.get("error")) for line in theirs} == {
            key: json.loads(body) for key, body in asyncio.run(read()).items()
        }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=8,
)  # fmt: skip
NOWHERE = [Endpoint("http://127.0.0.1:1", "loopback", "test", "m", "MIT", api=api) for api in APIS]
READERS = [
    (module._line, open_batches(endpoint))
    for module, endpoint in zip((openai, anthropic, gemini), NOWHERE, strict=True)
]
NAMES = st.sampled_from(
    ["custom_id", "key", "response", "body", "result", "message", "error", "type", "code", "status_code"]
)
LINES = st.recursive(JSON, lambda inner: st.dictionaries(NAMES, inner, max_size=5), max_leaves=12)


@given(st.dictionaries(st.text(max_size=6), JSON, max_size=4), st.text(max_size=6), JSON, st.booleans())
@settings(max_examples=50, deadline=None)
def test_a_part_of_a_line_comes_as_it_was_received(
    others: dict[str, Any], name: str, value: Any, is_ascii: bool
) -> None:
    inner, key = json.dumps(value, ensure_ascii=is_ascii, indent=1), json.dumps(name, ensure_ascii=is_ascii)
    before = json.dumps({**others, name: {"an earlier": "one"}}, ensure_ascii=is_ascii)[1:-1]
    line = f'{{ "z":[] , "outer" : {{ {before}\t,{key} :{inner}\n}} , "y":"}}"}}'
    assert raw_member(line.encode(), "outer", name) == inner.encode()
    with pytest.raises(WireError):
        raw_member(line.encode(), "outer", "not there")


@given(
    st.binary(max_size=60)
    | LINES.map(lambda value: json.dumps(value).encode())
    | st.just(b'{"key":"a","custom_id":"a","response":' + b"[" * 5000)
)
@settings(max_examples=60, deadline=None)
def test_no_line_can_break_the_readers(line: bytes) -> None:
    for reader, batches in READERS:
        if (found := reader(line)) is not None:
            with pytest.raises((AskAgain, Refused, TeacherError)):
                batches.reply(found, questions(1)[0])
                raise AskAgain("it was an answer")
    with pytest.raises(WireError):
        raw_member(line, "no such member")


@pytest.mark.parametrize("api", APIS)
def test_answers_that_are_no_jobs(tmp_path: Path, api: str) -> None:
    bodies = [b"", b"[]", b"{}", b"null", b'{"id": 7, "name": ["x"]}', b"\xff", b"[" * 5000, b'{"a":' * 5000]
    seen = list(bodies)
    desk = Desk(hook=lambda event: web.Response(body=seen.pop()) if event in ("created", "poll") and seen else None)
    with serving_batches(desk), Store(tmp_path) as store:
        asking = make(desk, store, api)
        run(asking, questions(2))
        assert (asking.answered, len(desk.jobs), seen) == (2, 1, [])
