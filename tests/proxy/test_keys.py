"""Who may ask, by key, and for which models, by grant."""

from __future__ import annotations

import os

import pytest

from tests.proxy.conftest import (
    ASK_SUPPORT,
    ROUTES,
    Proxy,
    Upstream,
    ask_on,
    connect,
    give_keys,
    until,
    until_both_workers_looked,
)


class TestKeys:
    def test_without_keys_everybody_may_ask(self, proxy: Proxy) -> None:
        assert proxy.complete(ASK_SUPPORT).status == 200
        assert proxy.complete(ASK_SUPPORT, key="any").status == 200

    def test_grants_without_keys_mean_nothing(self, proxy: Proxy) -> None:
        proxy.route(ROUTES, grants={"team": ["base"]})
        assert proxy.complete(ASK_SUPPORT).status == 200

    def test_with_an_empty_folder_nobody_may_ask(self, proxy: Proxy) -> None:
        proxy.keys.mkdir()
        until_both_workers_looked()
        assert proxy.complete(ASK_SUPPORT).status == 401
        assert proxy.complete(ASK_SUPPORT, key="any").status == 401
        (proxy.keys / "empty").write_text("\n")
        until_both_workers_looked()
        assert proxy.complete(ASK_SUPPORT, key=" ").status == 401

    def test_the_state_says_how_many_clients_there_are(self, proxy: Proxy) -> None:
        assert "clients" not in proxy.state()
        proxy.keys.mkdir()
        until_both_workers_looked()
        assert proxy.state()["clients"] == 0
        give_keys(proxy, {"team": "one", "guests": "two"})
        assert proxy.state()["clients"] == 2

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
