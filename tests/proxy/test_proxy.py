"""What the front proxy lets through, to whom, and what it makes of it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.proxy.conftest import (
    PATIENCE_SECONDS,
    ROUTES,
    Handler,
    Proxy,
    Upstream,
    ask_at,
    ask_on,
    free_port,
    give_keys,
    routing_table,
    running_upstream,
    until,
    until_both_workers_looked,
    whole,
)

PATHS = "POST /v1/chat/completions, POST /v1/completions, GET /v1/models and GET /health"
ASK_SUPPORT = b'{"model": "support"}'


def connect(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)


def request_text(body: bytes) -> bytes:
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class TestPaths:
    @pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
    def test_completions_are_passed(self, proxy: Proxy, upstream: Upstream, path: str) -> None:
        upstream.answer = whole(200, b'{"choices": []}')
        answer = proxy.ask("POST", path, ASK_SUPPORT)
        assert (answer.status, answer.body) == (200, b'{"choices": []}')
        received = upstream.received[0]
        assert (received.method, received.path) == ("POST", path)

    def test_what_vllm_refuses_is_passed_as_it_is(self, proxy: Proxy, upstream: Upstream) -> None:
        for status in (400, 422, 500, 503):
            text = f'{{"detail": {status}}}'.encode()
            upstream.answer = whole(status, text)
            answer = proxy.complete(ASK_SUPPORT)
            assert (answer.status, answer.body) == (status, text)

    def test_health_is_that_of_vllm(self, fresh_proxy: Proxy, upstream: Upstream) -> None:
        assert fresh_proxy.ask("GET", "/health").status == 200
        upstream.answer = whole(503, b"")
        assert fresh_proxy.ask("GET", "/health").status == 503

    def test_everything_else_does_not_exist(self, proxy: Proxy, upstream: Upstream) -> None:
        paths = [
            "/",
            "/metrics",
            "/tokenize",
            "/v1/load_lora_adapter",
            "/v1/unload_lora_adapter",
            "/v1/models/support",
            "/v1/completions/",
            "/v1/chat/completions/../../load_lora_adapter",
            "/v1/load_lora_adapter#/../chat/completions",
            "/routes",
            "/state",
            "/invocations",
            "/unreadable",
        ]
        for path in paths:
            message, kind, code = proxy.ask("POST", path, ASK_SUPPORT).error
            assert (kind, code) == ("NotFoundError", 404)
            assert PATHS in message
        assert upstream.received == []

    @pytest.mark.parametrize(
        "path",
        [
            "/v1/completions?x=/v1/load_lora_adapter",
            "/v1/load_lora_adapter/../completions",
            "/v1/load_lora_adapter%3f/../completions",
            "/v1/load_lora_adapter%23/../completions",
            "//v1/%63ompletions",
        ],
    )
    def test_vllm_sees_only_paths_that_exist(
        self, proxy: Proxy, upstream: Upstream, path: str
    ) -> None:
        assert proxy.ask("POST", path, ASK_SUPPORT).status == 200
        assert upstream.received[0].path == "/v1/completions"

    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            ("GET", "/v1/chat/completions", "POST"),
            ("PUT", "/v1/completions", "POST"),
            ("POST", "/v1/models", "GET"),
            ("DELETE", "/health", "GET"),
        ],
    )
    def test_a_wrong_method_is_told(
        self, proxy: Proxy, upstream: Upstream, method: str, path: str, allowed: str
    ) -> None:
        answer = proxy.ask(method, path, ASK_SUPPORT)
        message, kind, code = answer.error
        assert (kind, code) == ("MethodNotAllowedError", 405)
        assert allowed in message
        assert answer.headers["allow"] == allowed
        assert upstream.received == []

    def test_metrics_have_a_door_of_their_own(self, proxy: Proxy, upstream: Upstream) -> None:
        upstream.answer = whole(200, b"vllm:x 1\n")
        assert ask_at(proxy.metrics, "GET", "/metrics").body == b"vllm:x 1\n"
        assert ask_at(proxy.metrics, "POST", "/metrics", b"").status == 403
        for path in ("/", "/v1/load_lora_adapter", "/v1/completions", "/metrics/x"):
            assert ask_at(proxy.metrics, "POST", path, ASK_SUPPORT).status == 404
        assert [each.path for each in upstream.received] == ["/metrics"]

    def test_control_offers_only_routes_and_state(self, proxy: Proxy, upstream: Upstream) -> None:
        assert ask_at(proxy.control, "GET", "/routes").status == 405
        assert ask_at(proxy.control, "POST", "/routes", b"{}").status == 405
        assert ask_at(proxy.control, "PUT", "/state", b"{}").status == 405
        assert ask_at(proxy.control, "POST", "/v1/completions", ASK_SUPPORT).status == 404
        assert upstream.received == []

    @pytest.mark.parametrize(
        "text",
        [
            b"nonsense\r\n\r\n",
            b"GET /health HTTP/1.1\r\n\r\n",
            b"GET /health HTTP/3.0\r\nHost: x\r\n\r\n",
            b"GET /health HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 70_000 + b"\r\n\r\n",
            b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        ],
    )
    def test_what_cannot_be_read_is_refused(
        self, proxy: Proxy, upstream: Upstream, text: bytes
    ) -> None:
        with socket.create_connection(("127.0.0.1", proxy.door), PATIENCE_SECONDS) as client:
            client.sendall(text)
            assert b'"code":400}}' in client.recv(4096)
        assert upstream.received == []
        assert proxy.complete(ASK_SUPPORT).status == 200
        assert proxy.log == ""


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
        image = b"x\\n" * 5_000_000
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


class TestRoutes:
    def test_before_the_first_table_clients_are_to_try_again(self, fresh_proxy: Proxy) -> None:
        for answer in (fresh_proxy.complete(ASK_SUPPORT), fresh_proxy.ask("GET", "/v1/models")):
            assert answer.error[1:] == ("ServiceUnavailableError", 503)
            assert answer.headers["retry-after"] == "1"
        assert fresh_proxy.state() == {"digest": "", "traffic": {}}

    def test_an_unknown_model_is_told(self, proxy: Proxy, upstream: Upstream) -> None:
        message, kind, code = proxy.complete({"model": "suport"}).error
        assert (kind, code) == ("NotFoundError", 404)
        assert message == (
            "The model `suport` does not exist. GET /v1/models lists what is served."
        )
        assert upstream.received == []

    def test_a_name_whose_weights_are_all_zero_is_not_served(self, proxy: Proxy) -> None:
        proxy.route({"support": {"support@1": 0, "support@2": 0}, "other": {"other@1": 1}})
        assert proxy.complete(ASK_SUPPORT).status == 404
        assert proxy.models() == ["other"]

    def test_requests_are_shared_by_weight(self, proxy: Proxy, upstream: Upstream) -> None:
        proxy.route({"support": {"never": 0, "often": 90, "rarely": 10}})
        with ThreadPoolExecutor(4) as pool:
            statuses = list(pool.map(lambda _: proxy.complete(ASK_SUPPORT).status, range(1000)))
        assert statuses == [200] * 1000
        asked = Counter(each.model for each in upstream.received)
        assert asked.total() == 1000
        assert asked["never"] == 0
        # Six standard deviations around 100.
        assert 43 <= asked["rarely"] <= 157

    def test_a_thousand_names_are_used_at_once_by_both_workers(
        self, proxy: Proxy, upstream: Upstream
    ) -> None:
        for change in range(3):
            routes = {f"name-{each}": {f"name-{each}@{change}": 1} for each in range(1000)}
            proxy.route(routes, digest=f"change-{change}")
            for worker in range(2):
                with proxy.only_worker(worker):
                    assert proxy.complete({"model": "name-999"}).status == 200
                    assert upstream.received[-1].model == f"name-999@{change}"
                    assert len(proxy.models()) == 1000
                    assert proxy.state()["digest"] == f"change-{change}"

    def test_a_table_of_several_megabytes_is_taken(self, proxy: Proxy, upstream: Upstream) -> None:
        for change in range(5):
            version = f"{'v' * 200}@{change}"
            proxy.route({f"name-{each}": {version: 1} for each in range(20_000)})
            proxy.complete({"model": "name-19999"})
            assert upstream.received[-1].model == version

    @pytest.mark.parametrize(
        "table",
        [
            b"",
            b"nonsense",
            b"[]",
            b"null",
            b'{"routes": {}}',
            b'{"digest": "d"}',
            b'{"digest": "d", "routes": [[]]}',
            b'{"digest": "d", "routes": {"": []}}',
            b'{"digest": "d", "routes": {"a": 1}}',
            b'{"digest": "d", "routes": {"a": [1]}}',
            b'{"digest": "d", "routes": {"a": [{"model": "m"}]}}',
            b'{"digest": "d", "routes": {"a": [{"model": "", "weight": 1}]}}',
            b'{"digest": "d", "routes": {"a": [{"model": "m", "weight": -1}]}}',
            b'{"digest": "d", "routes": {"a": [{"model": "m", "weight": 0.5}]}}',
            b'{"digest": "d", "routes": {"a": [{"model": "m", "weight": 1e999}]}}',
            b'{"digest": "d", "routes": {}, "grants": 1}',
            b'{"digest": "d", "routes": {}, "grants": {"client": "*"}}',
            b'{"digest": "d", "routes": {}, "grants": {"client": [1]}}',
            b'{"digest": "d", "routes": {}, "base_address": "name:80"}',
            b'{"digest": "d", "routes": {}, "base_address": "10.0.0.1"}',
            b'{"digest": "d", "routes": {}, "base_address": "10.0.0.1:80/x"}',
        ],
    )
    def test_a_table_that_is_none_changes_nothing(self, proxy: Proxy, table: bytes) -> None:
        assert proxy.put(table).error[1:] == ("BadRequestError", 400)
        assert proxy.state()["digest"] == "d1"
        assert proxy.complete(ASK_SUPPORT).status == 200

    def test_the_models_are_those_of_the_table(self, proxy: Proxy, upstream: Upstream) -> None:
        before = int(time.time())
        proxy.route({"b": {"b@2": 90, "b@1": 10}, "a": {"a@1": 1}, "B/c": {"c": 1}})
        answer = proxy.ask("GET", "/v1/models")
        assert answer.headers["content-type"] == "application/json"
        models = answer.json["data"]
        assert answer.json == {"object": "list", "data": models}
        assert all(before - 1 <= each.pop("created") <= time.time() for each in models)
        rest = {"object": "model", "owned_by": "tunesmith"}
        assert models == [
            {"id": "B/c", "root": "c", **rest},
            {"id": "a", "root": "a@1", **rest},
            {"id": "b", "root": "b@2", **rest},
        ]
        assert upstream.received == []

    def test_no_models_are_an_empty_list(self, proxy: Proxy) -> None:
        proxy.route({})
        assert proxy.ask("GET", "/v1/models").json == {"object": "list", "data": []}

    def test_requests_for_the_base_go_to_its_address(
        self, proxy: Proxy, upstream: Upstream
    ) -> None:
        with running_upstream() as base:
            proxy.route(ROUTES, base_address=f"127.0.0.1:{base.port}")
            assert proxy.complete({"model": "base"}).status == 200
            assert proxy.complete({"model": "support"}).status == 200
            assert [(each.path, each.model) for each in base.received] == [
                ("/v1/chat/completions", "base")
            ]
        assert [each.model for each in upstream.received] == ["support@1"]

    def test_without_an_address_the_base_is_here(self, proxy: Proxy, upstream: Upstream) -> None:
        assert proxy.complete({"model": "base"}).status == 200
        assert upstream.received[0].model == "base"


class TestKeys:
    def test_without_keys_everybody_may_ask(self, proxy: Proxy) -> None:
        assert proxy.complete(ASK_SUPPORT).status == 200
        assert proxy.complete(ASK_SUPPORT, key="any").status == 200

    def test_grants_without_keys_mean_nothing(self, proxy: Proxy) -> None:
        proxy.route(ROUTES, grants={"team": ["base"]})
        assert proxy.complete(ASK_SUPPORT).status == 200

    def test_with_an_empty_folder_nobody_may_ask(self, proxy: Proxy) -> None:
        proxy.keys.mkdir()
        until(lambda: proxy.complete(ASK_SUPPORT).status == 401)
        assert proxy.complete(ASK_SUPPORT, key="any").status == 401
        (proxy.keys / "empty").write_text("\n")
        until_both_workers_looked()
        assert proxy.complete(ASK_SUPPORT, key=" ").status == 401

    @pytest.mark.skipif(os.getuid() != 0, reason="needs two users")
    def test_with_a_closed_folder_nobody_may_ask(self, proxy: Proxy) -> None:
        proxy.keys.mkdir()
        proxy.keys.chmod(0o700)
        until(lambda: proxy.complete(ASK_SUPPORT).status == 401)

    def test_only_the_right_key_opens(self, proxy: Proxy, upstream: Upstream) -> None:
        give_keys(proxy, {"team": "right-key\n"})
        assert proxy.complete(ASK_SUPPORT, key="right-key").status == 200
        asked = len(upstream.received)
        for key in ("", "right-ke", "right-key2", "RIGHT-KEY", "team", "right-key x"):
            for method, path in (("POST", "/v1/completions"), ("GET", "/v1/models")):
                answer = proxy.ask(method, path, ASK_SUPPORT, key)
                assert answer.error[1:] == ("AuthenticationError", 401)
                assert answer.headers["www-authenticate"] == "Bearer"
        assert len(upstream.received) == asked

    def test_other_schemes_do_not_open(self, proxy: Proxy) -> None:
        give_keys(proxy, {"team": "right"})
        connection = connect(proxy.door)
        expected = {"bearer right": 200, "BEARER  right ": 200, "Basic right": 401, "right": 401}
        for header, status in expected.items():
            headers = {"Authorization": header}
            assert ask_on(connection, "GET", "/v1/models", None, headers).status == status
        connection.close()

    def test_health_needs_no_key(self, proxy: Proxy) -> None:
        give_keys(proxy, {"team": "right"})
        assert proxy.ask("GET", "/health").status == 200

    def test_keys_come_and_go_without_a_restart(self, proxy: Proxy) -> None:
        give_keys(proxy, {"team": "first", "other": "second"})
        assert proxy.complete(ASK_SUPPORT, key="first").status == 200
        (proxy.keys / "team").unlink()
        until_both_workers_looked()
        for worker in range(2):
            with proxy.only_worker(worker):
                assert proxy.complete(ASK_SUPPORT, key="first").status == 401
                assert proxy.complete(ASK_SUPPORT, key="second").status == 200

    def test_keys_are_seen_by_nobody(self, proxy: Proxy, upstream: Upstream) -> None:
        give_keys(proxy, {"team": "right-key"})
        proxy.complete(ASK_SUPPORT, key="right-key")
        assert "authorization" not in upstream.received[0].headers
        upstream.answer = lambda handler: handler.connection.close()
        answers = [proxy.complete(ASK_SUPPORT, key="right-key"), proxy.complete(b"", "right-key")]
        answers += [proxy.complete(ASK_SUPPORT, key="wrong-key")]
        assert [each.status for each in answers] == [502, 400, 401]
        assert all(b"-key" not in each.body for each in answers)
        assert "upstream" in proxy.log
        assert "-key" not in proxy.log

    def test_clients_use_what_they_are_granted(self, proxy: Proxy, upstream: Upstream) -> None:
        grants = {"team": ["support*", "base"], "stars": ["*a*b*@1*"], "none": []}
        names = [
            "support",
            "support@1",
            "base",
            "base2",
            "my-support",
            "xaybz@12",
            "xbya@1",
            "ab@1",
        ]
        proxy.route({name: {name: 1} for name in names}, grants=grants)
        clients = ("team", "stars", "none", "unnamed")
        give_keys(proxy, {client: f"key-of-{client}" for client in clients})
        for client, granted in {
            "team": ["base", "support", "support@1"],
            "stars": ["ab@1", "xaybz@12"],
            "none": [],
            "unnamed": [],
        }.items():
            key = f"key-of-{client}"
            assert proxy.models(key) == granted
            for name in [*names, "support-unknown", "unknown"]:
                answer = proxy.complete({"model": name}, key)
                if name in granted:
                    assert answer.status == 200
                elif name == "support-unknown" and client == "team":
                    assert answer.status == 404
                else:
                    # Also for names that do not exist: what others have is not told.
                    assert answer.error[1:] == ("PermissionDeniedError", 403)
        assert {each.model for each in upstream.received} == {
            "base", "support", "support@1", "ab@1", "xaybz@12",
        }  # fmt: skip

    def test_characters_of_patterns_mean_themselves(self, proxy: Proxy) -> None:
        proxy.route({"a.b": {"m": 1}, "axb": {"m": 1}, "%a": {"m": 1}}, grants={"c": ["a.b", "%a"]})
        give_keys(proxy, {"c": "key"})
        assert proxy.models("key") == ["%a", "a.b"]

    def test_smuggling_does_not_help_against_grants(self, proxy: Proxy, upstream: Upstream) -> None:
        proxy.route(ROUTES, grants={"team": ["support"]})
        give_keys(proxy, {"team": "key"})
        for body in (
            b'{"model": "support", "model": "base"}',
            b'{"model": "support", "mod\\u0065l": "base"}',
        ):
            assert proxy.complete(body, "key").status == 400
        assert upstream.received == []


class TestStreams:
    def test_parts_pass_as_they_come(self, proxy: Proxy, upstream: Upstream) -> None:
        arrived = threading.Semaphore(0)

        def stream(handler: Handler) -> None:
            handler.begin_stream()
            for number in range(5):
                handler.chunk(b"data: %d\n\n" % number)
                # The next one follows only after the client has this one.
                assert arrived.acquire(timeout=PATIENCE_SECONDS)
            handler.chunk(b"")

        upstream.answer = stream
        connection = connect(proxy.door)
        connection.request("POST", "/v1/completions", ASK_SUPPORT)
        response = connection.getresponse()
        for number in range(5):
            assert response.read1() == b"data: %d\n\n" % number
            assert proxy.traffic("support@1")["in_flight"] == 1
            arrived.release()
        assert response.read() == b""
        connection.close()
        until(lambda: proxy.traffic("support@1")["in_flight"] == 0)
        assert proxy.traffic("support@1")["errors"] == 0

    @pytest.mark.parametrize("parts", [None, 0, 1, 3])
    def test_a_client_that_leaves_ends_the_request_to_vllm(
        self, proxy: Proxy, upstream: Upstream, parts: int | None
    ) -> None:
        # None: vLLM has not even sent the headers.
        def stream(handler: Handler) -> None:
            if parts is not None:
                handler.begin_stream()
                for _ in range(parts):
                    handler.chunk(b"data: x\n\n")
            # Ends when the proxy closes.
            handler.connection.settimeout(PATIENCE_SECONDS)
            if handler.connection.recv(1) == b"":
                upstream.abandoned.set()

        upstream.answer = stream
        clients = []
        for _ in range(5):
            client = socket.create_connection(("127.0.0.1", proxy.door), PATIENCE_SECONDS)
            client.sendall(request_text(ASK_SUPPORT))
            clients.append(client)
        until(lambda: len(upstream.received) == 5)
        assert proxy.traffic("support@1")["in_flight"] == 5
        for client in clients:
            if parts is not None:
                assert b"200 OK" in client.recv(65536)
            client.close()
        assert upstream.abandoned.wait(PATIENCE_SECONDS)
        until(lambda: proxy.traffic("support@1")["in_flight"] == 0)
        traffic = proxy.traffic("support@1")
        assert (traffic["requests"], traffic["errors"]) == (5, 0)

    @pytest.mark.parametrize("parts", [0, 1, 3])
    def test_a_stream_that_vllm_breaks_is_an_error(
        self, proxy: Proxy, upstream: Upstream, parts: int
    ) -> None:
        def broken(handler: Handler) -> None:
            handler.begin_stream()
            for _ in range(parts):
                handler.chunk(b"data: x\n\n")
            time.sleep(0.05)
            handler.close_connection = True

        upstream.answer = broken
        connection = connect(proxy.door)
        connection.request("POST", "/v1/completions", ASK_SUPPORT)
        response = connection.getresponse()
        assert response.status == 200
        with pytest.raises(http.client.IncompleteRead):
            response.read()
        connection.close()
        until(lambda: proxy.traffic("support@1")["in_flight"] == 0)
        assert proxy.traffic("support@1")["errors"] == 1

    def test_many_streams_at_once(self, proxy: Proxy, upstream: Upstream) -> None:
        go_on = threading.Event()

        def stream(handler: Handler) -> None:
            handler.begin_stream()
            handler.chunk(b"data: x\n\n")
            go_on.wait(PATIENCE_SECONDS)
            handler.chunk(b"")

        upstream.answer = stream
        clients = [
            socket.create_connection(("127.0.0.1", proxy.door), PATIENCE_SECONDS)
            for _ in range(200)
        ]
        for client in clients:
            client.sendall(request_text(ASK_SUPPORT))
        assert all(b"200 OK" in client.recv(65536) for client in clients)
        assert proxy.traffic("support@1")["in_flight"] == 200
        go_on.set()
        until(lambda: proxy.traffic("support@1")["in_flight"] == 0)
        for client in clients:
            client.close()
        assert proxy.traffic("support@1")["errors"] == 0


class TestTraffic:
    def test_requests_are_counted_by_version(self, proxy: Proxy, upstream: Upstream) -> None:
        def slow(handler: Handler) -> None:
            time.sleep(0.1)
            handler.whole(200, b"{}")

        upstream.answer = slow
        for name in ("support", "support@1", "base"):
            proxy.complete({"model": name})
        until(lambda: proxy.traffic("base").get("in_flight") == 0)
        traffic = proxy.state()["traffic"]
        assert set(traffic) == {"support@1", "base"}
        seconds = traffic["support@1"].pop("seconds")
        assert 0.2 <= seconds < 2
        assert traffic["support@1"] == {"requests": 2, "errors": 0, "in_flight": 0}

    def test_refused_requests_are_not_counted(self, proxy: Proxy) -> None:
        for body in ({"model": "unknown"}, {"model": "support", "echo": True}, {}):
            proxy.complete(body)
        proxy.ask("GET", "/health")
        assert proxy.state()["traffic"] == {}

    def test_only_what_is_the_servers_fault_is_an_error(
        self, proxy: Proxy, upstream: Upstream
    ) -> None:
        for status in (200, 400, 404, 499, 500, 503):
            upstream.answer = whole(status, b"{}")
            proxy.complete(ASK_SUPPORT)
        until(lambda: proxy.traffic("support@1")["in_flight"] == 0)
        traffic = proxy.traffic("support@1")
        assert (traffic["requests"], traffic["errors"]) == (6, 2)

    def test_counts_outlive_a_new_table(self, proxy: Proxy) -> None:
        proxy.complete(ASK_SUPPORT)
        proxy.route({"support": {"support@2": 1}}, digest="d2")
        assert proxy.state()["digest"] == "d2"
        assert proxy.traffic("support@1")["requests"] == 1

    def test_a_server_that_is_not_there_is_an_error(self, proxy: Proxy) -> None:
        proxy.route({"base": {"base": 1}}, base_address=f"127.0.0.1:{free_port()}")
        message, kind, code = proxy.complete({"model": "base"}).error
        assert (kind, code) == ("BadGatewayError", 502)
        assert message == "The model server does not answer."
        until(lambda: proxy.traffic("base")["in_flight"] == 0)
        traffic = proxy.traffic("base")
        assert (traffic["requests"], traffic["errors"]) == (1, 1)

    def test_a_server_that_breaks_off_is_an_error(self, proxy: Proxy, upstream: Upstream) -> None:
        def broken(handler: Handler) -> None:
            handler.close_connection = True

        upstream.answer = broken
        assert proxy.complete(ASK_SUPPORT).error[1:] == ("BadGatewayError", 502)
        until(lambda: proxy.traffic("support@1")["in_flight"] == 0)
        assert proxy.traffic("support@1")["errors"] == 1
        # It was asked once.
        assert len(upstream.received) == 1


class TestLeaving:
    def is_closed_after(self, proxy: Proxy, method: str, path: str, body: bytes) -> bool:
        with socket.create_connection(("127.0.0.1", proxy.door), PATIENCE_SECONDS) as client:
            head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)
            response = http.client.HTTPResponse(client)
            response.begin()
            response.read()
            closes = response.getheader("Connection") == "close"
            client.settimeout(0.1)
            try:
                closed = client.recv(1) == b""
            except TimeoutError:
                closed = False
            assert closes == closed
            return closed

    def test_connections_are_kept_until_the_pod_leaves(
        self, proxy: Proxy, upstream: Upstream
    ) -> None:
        requests = [
            ("POST", "/v1/completions", ASK_SUPPORT),
            ("POST", "/v1/completions", b"nonsense"),
            ("GET", "/v1/models", b""),
            ("GET", "/health", b""),
            ("GET", "/nowhere", b""),
        ]
        assert not any(self.is_closed_after(proxy, *each) for each in requests)
        kept = connect(proxy.door)
        assert ask_on(kept, "POST", "/v1/completions", ASK_SUPPORT).status == 200
        asked = len(upstream.received)

        proxy.leaving.touch()
        time.sleep(0.6)
        for worker in range(2):
            with proxy.only_worker(worker):
                assert all(self.is_closed_after(proxy, *each) for each in requests)
        assert len(upstream.received) == asked + 4
        # Connections from before are answered once more, and then closed, too.
        answer = ask_on(kept, "POST", "/v1/completions", ASK_SUPPORT)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        kept.close()


def test_the_table_of_the_sidecar_is_understood(proxy: Proxy) -> None:
    table = json.dumps({**routing_table(ROUTES), "complete": True}).encode()
    assert proxy.put(table).json == {"digest": "d1"}


def test_nothing_unexpected_is_logged(proxy: Proxy) -> None:
    proxy.complete(ASK_SUPPORT)
    proxy.complete(b"nonsense")
    proxy.ask("GET", "/nowhere")
    assert proxy.log == ""
