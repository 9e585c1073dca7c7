"""Whether a pod may be sent requests, and whose door gets to see a client's key."""

from __future__ import annotations

import pytest

from tests.proxy.conftest import (
    ROUTES,
    Proxy,
    Upstream,
    ask_at,
    give_keys,
    running_upstream,
    whole,
)

SUPPORT, BASE = {"model": "support"}, {"model": "base"}


class TestReady:
    def test_before_the_first_table_nobody_is_sent_here(
        self, fresh_proxy: Proxy, upstream: Upstream
    ) -> None:
        assert fresh_proxy.ask("GET", "/ready").error[1:] == ("ServiceUnavailableError", 503)
        assert upstream.received == []

    @pytest.mark.parametrize("rest", [{}, {"complete": False}, {"complete": None}, {"complete": 1}])
    def test_nor_while_adapters_are_being_loaded(
        self, proxy: Proxy, upstream: Upstream, rest: dict[str, object]
    ) -> None:
        proxy.route(ROUTES, **rest)
        message, kind, code = proxy.ask("GET", "/ready").error
        assert (message, kind, code) == (
            "The adapters are being loaded.",
            "ServiceUnavailableError",
            503,
        )
        assert upstream.received == []
        assert proxy.complete(SUPPORT).status == 200, "what is there answers all the same"

    @pytest.mark.parametrize("status", [200, 500, 503])
    def test_then_vllms_health_decides(self, proxy: Proxy, upstream: Upstream, status: int) -> None:
        proxy.route(ROUTES, complete=True)
        upstream.answer = whole(status, b"")
        assert proxy.ask("GET", "/ready").status == status
        (received,) = upstream.received
        assert (received.method, received.path) == ("GET", "/health")

    def test_a_vllm_that_is_gone_is_not_ready(self, proxy: Proxy, upstream: Upstream) -> None:
        proxy.route(ROUTES, complete=True)
        upstream.shutdown()
        upstream.server_close()
        assert proxy.ask("GET", "/ready").error[1:] == ("BadGatewayError", 502)

    def test_a_table_that_is_complete_no_more_takes_it_back(self, proxy: Proxy) -> None:
        proxy.route(ROUTES, complete=True, digest="d2")
        assert proxy.ask("GET", "/ready").status == 200
        proxy.route(ROUTES, complete=False, digest="d3")
        for worker in range(2):
            with proxy.only_worker(worker):
                assert proxy.ask("GET", "/ready").status == 503

    def test_it_is_vllm_here_that_is_asked_and_not_the_pods_of_the_base(
        self, proxy: Proxy, upstream: Upstream
    ) -> None:
        with running_upstream() as base:
            proxy.route(ROUTES, complete=True, base_address=f"127.0.0.1:{base.port}")
            assert proxy.ask("GET", "/ready").status == 200
            assert base.received == []
        assert len(upstream.received) == 1

    def test_the_kubelet_needs_no_key_and_is_not_counted(self, proxy: Proxy) -> None:
        proxy.route(ROUTES, complete=True)
        give_keys(proxy, {"team": "right"})
        assert proxy.ask("GET", "/ready").status == 200
        assert proxy.state()["traffic"] == {}

    def test_a_wrong_method_is_told(self, proxy: Proxy, upstream: Upstream) -> None:
        proxy.route(ROUTES, complete=True)
        answer = proxy.ask("POST", "/ready", b"{}")
        assert answer.error[1:] == ("MethodNotAllowedError", 405)
        assert answer.headers["allow"] == "GET"
        assert upstream.received == []

    def test_a_pod_that_leaves_still_tells(self, proxy: Proxy) -> None:
        proxy.route(ROUTES, complete=True)
        proxy.leaving.touch()
        for _ in range(4):
            assert proxy.ask("GET", "/ready").status == 200


class TestKeysPassedOn:
    """The pods of the base model have a door of their own, which asks for the same key."""

    def test_the_door_of_the_base_gets_the_key(self, proxy: Proxy, upstream: Upstream) -> None:
        give_keys(proxy, {"team": "right-key"})
        with running_upstream() as base:
            proxy.route(ROUTES, base_address=f"127.0.0.1:{base.port}")
            assert proxy.complete(BASE, "right-key").status == 200
            (received,) = base.received
            assert received.headers["authorization"] == "Bearer right-key"
        assert upstream.received == []

    def test_no_key_that_does_not_open_this_door_gets_there(self, proxy: Proxy) -> None:
        give_keys(proxy, {"team": "right-key"})
        with running_upstream() as base:
            proxy.route(ROUTES, base_address=f"127.0.0.1:{base.port}")
            assert proxy.complete(BASE, "wrong-key").status == 401
            assert base.received == []

    def test_vllm_here_gets_no_key(self, proxy: Proxy, upstream: Upstream) -> None:
        give_keys(proxy, {"team": "right-key"})
        with running_upstream() as base:
            proxy.route(ROUTES, complete=True, base_address=f"127.0.0.1:{base.port}")
            assert proxy.complete(BASE, "right-key").status == 200
            assert proxy.complete(SUPPORT, "right-key").status == 200
            assert proxy.ask("GET", "/health", key="right-key").status == 200
            assert proxy.ask("GET", "/ready", key="right-key").status == 200
        assert ask_at(proxy.metrics, "GET", "/metrics", key="right-key").status == 200
        assert [each.path for each in upstream.received] == [
            "/v1/chat/completions",
            "/health",
            "/health",
            "/metrics",
        ]
        assert all("authorization" not in each.headers for each in upstream.received)

    def test_without_pods_of_its_own_the_base_gets_no_key(
        self, proxy: Proxy, upstream: Upstream
    ) -> None:
        assert proxy.complete(BASE, "some-key").status == 200
        assert "authorization" not in upstream.received[0].headers
