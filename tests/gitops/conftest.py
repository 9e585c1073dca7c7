"""Argo CD, as the chart tells it."""

from __future__ import annotations

import json

import pytest

from tests.gitops.argocd import CHECKS, ArgoCd, rendered


@pytest.fixture(scope="session")
def argocd(tmp_path_factory: pytest.TempPathFactory) -> ArgoCd:
    objects = rendered(argocd__healthChecks="true")
    (config_map,) = [each for each in objects if each["metadata"]["name"] == CHECKS]
    path = tmp_path_factory.mktemp("argocd") / "argocd-cm.json"
    path.write_text(json.dumps(config_map))
    return ArgoCd(path)
