"""What the proxy changes in a body, and which bodies it refuses."""

from __future__ import annotations

import socket

import pytest

from tests.proxy.conftest import (
    PATIENCE_SECONDS,
    ROUTES,
    Proxy,
    Upstream,
    ask_on,
    connect,
    give_keys,
    request_text,
)


class TestBodies:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (b"{", b', "tools": [], "stop": [ ], "x": {}}'),
            (b'{"temperature": 1e400, "seed": 12345678901234567890, ', b"}"),
            (b'{"top_p": 0.1000000000000000055511151231257827, ', b', "n": 1.0}'),
            ('{"user": "Žofie 🦊 \\u017d \\ud83e\\udd8a", '.encode(), b"}"),
            (b'{"metadata": {"model": "other", "a": [{"model": "x"}]}, ', b"}"),
            (b'{"messages": [{"content": "\\"model\\": \\"x\\"}]"}], ', b', "a": "\\\\"}'),
            (b' \r\n{\t"a" :null , ', b'\n,\n"stream" : true\n} \n'),
            (b'{"a": [], "b": {}, "c": "", "": "}", ', b', "model ": "x", "Model": "y"}'),
            (b'{"echo": false, "prompt_logprobs": null, ', b"}"),
        ],
    )
    def test_only_the_name_of_the_model_changes(
        self, proxy: Proxy, upstream: Upstream, before: bytes, after: bytes
    ) -> None:
        assert proxy.complete(before + b'"model": "support"' + after).status == 200
        assert upstream.received[0].body == before + b'"model": "support@1"' + after

    def test_the_name_may_be_written_with_escapes(self, proxy: Proxy, upstream: Upstream) -> None:
        assert proxy.complete(b'{"mod\\u0065l" :"supp\\u006frt" ,"a":1}').status == 200
        assert upstream.received[0].body == b'{"mod\\u0065l" :"support@1" ,"a":1}'

    def test_a_name_may_need_escapes(self, proxy: Proxy, upstream: Upstream) -> None:
        name = 'org/"ba\\se" é'
        proxy.route({"base": {name: 1}})
        assert proxy.complete({"model": "base"}).status == 200
        assert upstream.received[0].model == name

    def test_a_large_body_arrives_whole(self, proxy: Proxy, upstream: Upstream) -> None:
        image = b"x\\n" * 2_500_000
        assert proxy.complete(b'{"image": "' + image + b'", "model": "support"}').status == 200
        expected = b'{"image": "' + image + b'", "model": "support@1"}'
        assert upstream.received[0].body == expected

    def test_a_body_in_chunks_arrives_whole(self, proxy: Proxy, upstream: Upstream) -> None:
        connection = connect(proxy.door)
        parts = [b'{"model": "sup', b'port", "a": "', b"b" * 100_000, b'"}']
        connection.request("POST", "/v1/completions", iter(parts), encode_chunked=True)
        assert connection.getresponse().status == 200
        connection.close()
        received = upstream.received[0]
        assert received.body == b'{"model": "support@1", "a": "' + b"b" * 100_000 + b'"}'
        assert received.headers["content-length"] == str(len(received.body))

    def test_a_body_that_is_too_large_is_refused(self, proxy: Proxy, upstream: Upstream) -> None:
        with socket.create_connection(("127.0.0.1", proxy.door), PATIENCE_SECONDS) as client:
            client.sendall(request_text(b"x" * (33 << 20))[:200])
            text = client.recv(4096)
        assert b" 413 " in text
        assert b'"type":"RequestTooLargeError"' in text
        assert upstream.received == []

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"nonsense",
            b'"model"',
            b'["model", "support"]',
            b'{"model": "support"',
            b'{"model": "support',
            b'{"model": "support"} {}',
            b'{"model": "support"}\0',
            b'{"model": "support",}',
            b'{"model" "support"}',
            b'{"model": "support", "a": [}',
            b'[{"model": "support"}]',
            b"{" + b'"a":{' * 2000 + b"}" * 2001,
            '{"model": "support"}'.encode("utf-16"),
            '{"model": "support"}'.encode("utf-16-le"),
        ],
    )
    def test_what_is_no_json_object_is_refused(
        self, proxy: Proxy, upstream: Upstream, body: bytes
    ) -> None:
        message, kind, code = proxy.complete(body).error
        assert (message, kind, code) == ("The body is not a JSON object.", "BadRequestError", 400)
        assert upstream.received == []

    @pytest.mark.parametrize("body", [b"{}", b'{"messages": []}', b'{"a": {"model": "support"}}'])
    def test_a_missing_model_is_told(self, proxy: Proxy, upstream: Upstream, body: bytes) -> None:
        message, kind, code = proxy.complete(body).error
        assert (message, code) == ("Name a model: GET /v1/models lists them.", 400)
        assert kind == "BadRequestError"
        assert upstream.received == []

    @pytest.mark.parametrize(
        "value", [b"1", b"null", b"true", b"false", b"[]", b'{"a": "support"}']
    )
    def test_a_model_that_is_no_string_is_refused(
        self, proxy: Proxy, upstream: Upstream, value: bytes
    ) -> None:
        assert proxy.complete(b'{"model": ' + value + b"}").error[2] == 400
        assert upstream.received == []

    @pytest.mark.parametrize(
        "body",
        [
            b'{"model": "support", "model": "secret"}',
            b'{"model": "secret", "model": "support"}',
            b'{"model": "support", "mod\\u0065l": "secret"}',
            b'{"mod\\u0065l": "secret", "model": "support"}',
            b'{"\\u006d\\u006f\\u0064\\u0065\\u006c": "secret", "model": "support"}',
            b'{"model": "support", "a": "\\\\", "model": "secret"}',
            b'{"model": "support", "a": {"b": [1, 2]}, "model": "secret"}',
            b'{"model": "support", "model": "support"}',
            b'{"model": "support", "echo": true, "echo": false}',
            b'{"model": "support", "echo": false, "ech\\u006f": true}',
            b'{"model": "support", "prompt_logprobs": 1, "prompt_logprobs": null}',
            b'{"model": "support", "echo": true}',
            b'{"model": "support", "echo": 1}',
            b'{"model": "support", "echo": "yes"}',
            b'{"model": "support", "ech\\u006f": true}',
            b'{"model": "support", "prompt_logprobs": 1}',
            b'{"model": "support", "prompt_logprobs": 0}',
        ],
    )
    def test_nothing_is_smuggled_past(self, proxy: Proxy, upstream: Upstream, body: bytes) -> None:
        proxy.route({**ROUTES, "secret": {"secret@1": 1}})
        message, kind, code = proxy.complete(body).error
        assert (kind, code) == ("BadRequestError", 400)
        assert message.endswith(".")
        assert upstream.received == []

    def test_a_refused_body_is_not_read_as_the_next_request(
        self, proxy: Proxy, upstream: Upstream
    ) -> None:
        give_keys(proxy, {"team": "right"})
        connection = connect(proxy.door)
        inner = request_text(b"{}") * 1000
        assert ask_on(connection, "POST", "/v1/completions", inner).status == 401
        assert ask_on(connection, "POST", "/nowhere", inner).status == 404
        assert ask_on(connection, "GET", "/health").status == 200
        connection.close()
        assert [each.path for each in upstream.received] == ["/health"]
