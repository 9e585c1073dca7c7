"""Which model a request reaches by the table, and which tables are taken."""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.proxy.conftest import (
    ASK_SUPPORT,
    ROUTES,
    Proxy,
    Upstream,
    routing_table,
    running_upstream,
)


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

    def test_a_name_that_is_coming_is_not_unknown(self, proxy: Proxy, upstream: Upstream) -> None:
        proxy.route({"other": {"other@1": 1}}, coming=["support"])
        answer = proxy.complete(ASK_SUPPORT)
        assert answer.error[1:] == ("ServiceUnavailableError", 503)
        assert answer.headers["retry-after"] == "1"
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


def test_the_table_of_the_sidecar_is_understood(proxy: Proxy) -> None:
    table = json.dumps({**routing_table(ROUTES), "complete": True}).encode()
    assert proxy.put(table).json == {"digest": "d1"}
