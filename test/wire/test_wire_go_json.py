"""JSON as Go reads it. The rows were run through Go 1.26's json.Unmarshal; `GO_DIFFERS` lists where we refuse."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from size import record, seed, size
from spike.error import FormatError, InputError
from spike.wire import go_json
from spike.wire.call import CALLS
from spike.wire.keeper import KEEPER_CALLS
from spike.wire.message import Empty, GoInt, Message, Octet
from spike.wire.secret import SecretGetRequest, SecretPutRequest, SecretVersionsRequest


class Inner(Message, frozen=True):
    name: str = ""
    count: GoInt = 0


class Sample(Message, frozen=True):
    """One field of each kind that a message has."""

    path: str = ""
    version: GoInt = 0
    flag: bool = False
    versions: list[GoInt] = msgspec.field(default_factory=list)
    values: dict[str, str] = msgspec.field(default_factory=dict)
    data: bytes = b""
    shard: list[Octet] | None = None
    by_number: dict[GoInt, str] = msgspec.field(default_factory=dict)
    inner: Inner = msgspec.field(default_factory=Inner)
    inners: list[Inner] = msgspec.field(default_factory=list)


def read(body: bytes | str) -> Sample:
    raw = body.encode() if isinstance(body, str) else body
    return go_json.decode_untrusted(Sample, raw)


ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    ("{}", {}),
    (" \t\r\n{} \n", {}),
    ("null", {}),
    (" null ", {}),
    ('{"path":"a","version":3}', {"path": "a", "version": 3}),
    ('{"Path":"a"}', {"path": "a"}),
    ('{"PATH":"a","path":"b"}', {"path": "b"}),
    ('{"path":"a","PATH":"b"}', {"path": "b"}),
    ('{"path":"a","path":"b"}', {"path": "b"}),
    ('{"PATH":"a","path":"b","Path":"c"}', {"path": "c"}),
    ('{"path":"a","path":null}', {"path": "a"}),
    ('{"path":null,"path":"a"}', {"path": "a"}),
    ('{"version":1,"version":2}', {"version": 2}),
    ('{"ver\\u017fion":3}', {"version": 3}),
    ('{"verſion":3}', {"version": 3}),
    ('{"p\\u0061th":"z"}', {"path": "z"}),
    ('{"path":null,"version":null,"flag":null}', {}),
    ('{"versions":null,"values":null,"data":null,"shard":null,"inner":null}', {}),
    ('{"versions":[1],"versions":null}', {}),
    ('{"values":{"a":"1"},"values":null}', {}),
    ('{"versions":[1,null,2]}', {"versions": [1, 0, 2]}),
    ('{"values":{"a":null,"b":"1"}}', {"values": {"a": "", "b": "1"}}),
    ('{"values":{"A":"1","a":"2"}}', {"values": {"A": "1", "a": "2"}}),
    ('{"values":{"a":"1","a":"2"}}', {"values": {"a": "2"}}),
    ('{"Values":{"path":"1","unknown":"2"}}', {"values": {"path": "1", "unknown": "2"}}),
    ('{"unknown":{"a":[1,2.5,{}],"b":null},"path":"x"}', {"path": "x"}),
    ('{"unknown":1e999,"path":"x"}', {"path": "x"}),
    ('{"unknown":[[[[[[1]]]]]],"path":"x"}', {"path": "x"}),
    ('{"":1,"path ":"no","path":"x"}', {"path": "x"}),
    ('{"version":-0}', {"version": 0}),
    ('{"version":-9223372036854775808}', {"version": -(2**63)}),
    ('{"version":9223372036854775807}', {"version": 2**63 - 1}),
    ('{"Version":9223372036854775807}', {"version": 2**63 - 1}),
    ('{"data":"YQ=="}', {"data": b"a"}),
    ('{"data":""}', {"data": b""}),
    ('{"Data":"YWI="}', {"data": b"ab"}),
    ('{"shard":[1,2,255]}', {"shard": [1, 2, 255]}),
    ('{"shard":[1,null]}', {"shard": [1, 0]}),
    ('{"shard":[]}', {"shard": []}),
    ('{"byNumber":{"1":"a","-2":"b"}}', {"by_number": {1: "a", -2: "b"}}),
    ('{"BYNUMBER":{"1":null}}', {"by_number": {1: ""}}),
    ('{"inner":{"Name":"a","x":1}}', {"inner": Inner(name="a")}),
    ('{"inners":[{"name":"a"},{},null]}', {"inners": [Inner(name="a"), Inner(), Inner()]}),
    ('{"path":"a\\u0000b"}', {"path": "a\0b"}),
    ('{"path":"a\\/\\u00e9é😀\\ud83d\\ude00"}', {"path": "a/éé😀😀"}),
    ('{"flag":true}', {"flag": True}),
]


@pytest.mark.parametrize(("body", "fields"), ACCEPTED)
def test_go_reads_it_and_so_do_we(body: str, fields: dict[str, Any]) -> None:
    assert read(body) == Sample(**fields)


REFUSED = [
    "",
    " ",
    "[]",
    "1",
    '"path"',
    "{}x",
    "{} {}",
    "{}\0",
    "\ufeff{}",
    "{'path':'a'}",
    '{"path":"a",}',
    '{"path":"a"',
    '{"path" "a"}',
    "{path:1}",
    '{"path":1}',
    '{"path":true}',
    '{"path":["a"]}',
    '{"path":{}}',
    '{"Path":{}}',
    '{"Path":{"a":1}}',
    '{"Path":1.5}',
    '{"path":"a\tb"}',
    '{"path":"a\nb"}',
    '{"path":"a\\x"}',
    '{"Path":"a\tb"}',
    '{"version":1.0}',
    '{"Version":1.0}',
    '{"version":1e2}',
    '{"Version":1e2}',
    '{"version":"1"}',
    '{"Version":"1"}',
    '{"version":01}',
    '{"version":+1}',
    '{"version":1.}',
    '{"version":.5}',
    '{"version":0x1}',
    '{"version":true}',
    '{"version":9223372036854775808}',
    '{"version":-9223372036854775809}',
    '{"Version":9223372036854775808}',
    '{"Version":' + "9" * 5000 + "}",
    '{"version":{}}',
    '{"flag":1}',
    '{"flag":"true"}',
    '{"versions":{}}',
    '{"Versions":{}}',
    '{"versions":[1,2.5]}',
    '{"versions":[null,2.5]}',
    '{"versions":["1"]}',
    '{"versions":1}',
    '{"values":[]}',
    '{"Values":[["a","b"]]}',
    '{"values":{"a":1}}',
    '{"Values":{"a":1}}',
    '{"values":{"a":{"b":"c"}}}',
    '{"data":"YQ"}',
    '{"data":"_-=="}',
    '{"data":1}',
    '{"Data":{}}',
    '{"shard":[256]}',
    '{"shard":[-1]}',
    '{"Shard":[256]}',
    '{"shard":"AA=="}',
    '{"byNumber":{"x":"a"}}',
    '{"inner":[]}',
    '{"inner":"a"}',
    '{"unknown":NaN}',
    '{"unknown":Infinity}',
    '{"unknown":-Infinity}',
    '{"unknown":tru}',
    '{"unknown":01}',
    '{"unknown":"\t"}',
    '{"path":"a","path":1}',
    '{"path":1,"path":"a"}',
    '{"values":{"a":1},"values":{"a":"1"}}',
    '{"values":{"a":1,"a":"1"}}',
    '{"Path":1,"path":"a"}',
]


@pytest.mark.parametrize("body", REFUSED)
def test_go_refuses_it_and_so_do_we(body: str) -> None:
    with pytest.raises(InputError):
        read(body)


GO_DIFFERS = [
    pytest.param(b'{"path":"\xff"}', id="not UTF-8"),
    pytest.param(b'{"Path":"\xff"}', id="not UTF-8, other case"),
    pytest.param(b'{"unknown":"\xff"}', id="not UTF-8 where nobody looks"),
    pytest.param(b'{"\xff":1}', id="a name that is not UTF-8"),
    pytest.param(b'{"path":"\xed\xa0\x80"}', id="an encoded surrogate"),
    pytest.param(b'{"path":"\\ud800"}', id="a lone surrogate"),
    pytest.param(b'{"Path":"\\ud800"}', id="a lone surrogate, other case"),
    pytest.param(b'{"path":"\\ude00\\ud83d"}', id="surrogates in the wrong order"),
    pytest.param(b'{"Values":{"\\ud800":"a"}}', id="a lone surrogate in a key"),
    pytest.param(b'{"data":"YQ==\\n"}', id="a line break in base64"),
    pytest.param(b'{"data":[97]}', id="bytes as numbers"),
    pytest.param(b'{"Data":[97]}', id="bytes as numbers, other case"),
    pytest.param(b'{"unknown":' + b"[" * 65 + b"]" * 65 + b"}", id="65 levels"),
]


@pytest.mark.parametrize("body", GO_DIFFERS)
def test_what_go_reads_and_no_go_client_sends_is_refused(body: bytes) -> None:
    with pytest.raises(InputError):
        read(body)


def test_as_deep_as_the_limit_is_read() -> None:
    inside = go_json.DEPTH_LIMIT - 1
    assert read('{"path":"a","unknown":' + "[" * inside + "]" * inside + "}").path == "a"


def test_brackets_in_strings_and_side_by_side_are_no_depth() -> None:
    body = '{"Path":"[[[[\\"[[[[","unknown":["' + "[{" * 100 + '"' + ",[]" * 200 + "]}"
    assert read(body).path == '[[[["[[[['


@pytest.mark.parametrize("opener", ["[", '{"a":', '[{"a":'])
def test_very_deep_nesting_is_refused_at_once(opener: str) -> None:
    for prefix in ("", '{"unknown":', '{"path":"a","Values":'):
        with pytest.raises(InputError):
            read(prefix + opener * 100_000)


def test_a_body_above_the_limit_is_refused_unread() -> None:
    assert go_json.decode_untrusted(Sample, b'{"path":"a"}', limit_bytes=12).path == "a"
    with pytest.raises(InputError, match="larger than 11 bytes"):
        go_json.decode_untrusted(Sample, b'{"path":"a"}', limit_bytes=11)


def test_any_buffer_is_read() -> None:
    for body in (b'{"Path":"a"}', bytearray(b'{"Path":"a"}'), memoryview(b'{"Path":"a"}')):
        assert go_json.decode_untrusted(Sample, body).path == "a"


def test_an_answer_that_cannot_be_read_is_the_server_s_fault() -> None:
    with pytest.raises(FormatError, match="the server's answer"):
        go_json.decode_answer_untrusted(Sample, b"<html>")
    assert go_json.decode_answer_untrusted(Sample, b'{"path":"a","err":""}').path == "a"


@pytest.mark.parametrize(
    "body",
    [
        b'{"hunter2":',
        b'{"hunter2":1,"path":{"hunter2":1}}',
        b'{"values":{"hunter2":["hunter2"]}}',
        b'{"path":"hunter2\xff"}',
        b'{"Data":"hunter2"}',
    ],
)
def test_no_error_repeats_the_body(body: bytes) -> None:
    with pytest.raises(InputError) as caught:
        read(body)
    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter2" not in f"{error!r} {error}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


JSON_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
SAMPLES = st.builds(
    Sample,
    path=JSON_TEXT,
    version=st.integers(-(2**63), 2**63 - 1),
    flag=st.booleans(),
    versions=st.lists(st.integers(-5, 5), max_size=3),
    values=st.dictionaries(JSON_TEXT, JSON_TEXT, max_size=3),
    data=st.binary(max_size=5),
    shard=st.none() | st.lists(st.integers(0, 255), max_size=3),
    by_number=st.dictionaries(st.integers(-5, 5), JSON_TEXT, max_size=3),
    inners=st.lists(st.builds(Inner, name=JSON_TEXT), max_size=2),
)


@settings(max_examples=size(test=200, proof=20_000), derandomize=True)
@given(SAMPLES)
def test_the_slow_way_gives_the_same_as_the_fast_one(sample: Sample) -> None:
    body = go_json.encode(sample)
    assert read(body) == sample
    # An unknown field sends the same body the slow way; another case does too.
    assert read(b'{"unknown":null,' + body[1:]) == sample
    assert read(body.replace(b'"path":', b'"PATH":', 1)) == sample


def test_what_go_clients_send_is_read_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(message_type: type[Message], body: bytes) -> bytes:
        raise AssertionError(f"{body!r} was read the slow way")

    monkeypatch.setattr(go_json, "_usual_form", slow)
    go_json.decode_untrusted(SecretGetRequest, b'{"path":"a","version":3}')
    go_json.decode_untrusted(SecretGetRequest, b'{"path":"a"}')
    go_json.decode_untrusted(SecretPutRequest, b'{"path":"a","values":{"k":"v"}}')
    go_json.decode_untrusted(SecretVersionsRequest, b'{"path":"a","versions":[1,2]}')
    go_json.decode_untrusted(Empty, b"{}")


ODD: tuple[str, ...] = (
    *("null", "true", "0", "-1", "255", "1.5", "1e2", "9" * 21, "1" + "0" * 4000, '""', '"AA=="'),
    *('"x"', '"00"', "[]", "{}", "[1.5]", "[[1.5]]", '{"1":1.5}', "[null]", '{"a":[1e400]}'),
)
MESSAGES = tuple(
    {message for call in (*CALLS, *KEEPER_CALLS) for message in (call.request, call.answer)}
)


def odd_body(chance: random.Random, message: type[Message], depth: int = 0) -> str:
    """Return an object with fields of the message, of others, and values of any kind."""
    names = [*message.__struct_encode_fields__, "unknown", *message.__struct_encode_fields__]
    fields = [
        f'"{chance.choice(names)}":{odd_value(chance, message, depth)}'
        for _ in range(chance.randrange(5))
    ]
    return "{" + ",".join(fields) + "}"


def odd_value(chance: random.Random, message: type[Message], depth: int) -> str:
    kind = chance.random()
    if depth > 3 or kind < 0.6:
        return chance.choice(ODD)
    if kind < 0.8:
        items = (odd_value(chance, message, depth + 1) for _ in range(chance.randrange(4)))
        return "[" + ",".join(items) + "]"
    return odd_body(chance, message, depth + 1)


def test_no_value_of_any_kind_anywhere_brings_about_another_error() -> None:
    number, rounds = seed(), size(test=20_000, proof=1_000_000)
    print("seed", number)
    chance = random.Random(number)
    for _ in range(rounds):
        message = chance.choice(MESSAGES)
        body = odd_body(chance, message).encode()
        with contextlib.suppress(InputError, FormatError):
            go_json.decode_untrusted(message, body)
        with contextlib.suppress(FormatError):
            go_json.decode_answer_untrusted(message, body)
    record("odd values in every message", rounds, "only their documented errors", seed=number)
