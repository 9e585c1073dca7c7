"""Which paths and methods each door of the proxy lets through."""

from __future__ import annotations

import socket

import pytest

from tests.proxy.conftest import ASK_SUPPORT, PATIENCE_SECONDS, Proxy, Upstream, ask_at, whole

PATHS = "POST /v1/chat/completions, POST /v1/completions, GET /v1/models and GET /health"


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
