"""How answers stream, what is counted and logged, and how connections end."""

from __future__ import annotations

import http.client
import socket
import threading
import time

import pytest

from tests.proxy.conftest import (
    ASK_SUPPORT,
    PATIENCE_SECONDS,
    Handler,
    Proxy,
    Upstream,
    ask_on,
    connect,
    free_port,
    request_text,
    until,
    whole,
)


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


def test_nothing_unexpected_is_logged(proxy: Proxy) -> None:
    proxy.complete(ASK_SUPPORT)
    proxy.complete(b"nonsense")
    proxy.ask("GET", "/nowhere")
    assert proxy.log == ""
