"""Behind a proxy that shows the node at a path: with the path passed on, and with the path stripped."""

import re
from collections.abc import AsyncIterator
from urllib.parse import urljoin

import httpx
import pytest

from constraint_crdt import NodeSettings
from constraint_crdt.client import AsyncClient
from constraint_crdt.dashboard import dashboard_pages
from constraint_crdt.http.server import ApiServer
from constraint_crdt.operations import constraints
from constraint_crdt.runtime.node import Node
from constraint_crdt.runtime.settings import SettingsError


@pytest.fixture
async def api(node: Node) -> AsyncIterator[ApiServer]:
    async with ApiServer(node, "127.0.0.1", 0, pages=dashboard_pages("/crdt/"), base_path="/crdt/") as serving:
        yield serving


@pytest.mark.slow
async def test_the_page_and_all_that_it_loads_are_below_the_path(api: ApiServer) -> None:
    async with httpx.AsyncClient(follow_redirects=True) as client:
        page = await client.get(f"{api.url}/crdt")
        assert (page.status_code, page.url.path) == (200, "/crdt/")
        assert page.text == (await client.get(f"{api.url}/")).text, "as for a proxy that strips the path"
        loaded = re.findall(r'(?:href|src)="(/[^"]*)"', page.text)
        assert loaded
        for link in loaded:
            assert link.startswith("/crdt/dashboard/")
            assert (await client.get(f"{api.url}{link}")).status_code == 200
        docs = await client.get(f"{api.url}/crdt/docs")
        for link in re.findall(r'(?:href|src)="([^"]*)"', docs.text):
            assert (await client.get(urljoin(f"{api.url}/crdt/docs", link))).status_code == 200
        assert (await client.get(f"{api.url}/crdtx")).status_code == 404
        stripped = await client.get(f"{api.url}/crdt/v1/tiles/a%2Fb/c")
        assert "tile 'c' in room 'a/b' is not there" in stripped.json()["detail"], "an encoded slash stays one"


@pytest.mark.slow
async def test_a_client_follows_pages_below_the_path_and_without_it(api: ApiServer, node: Node) -> None:
    for number in range(5):
        await node.add_constraint(f"c{number}")
    async with httpx.AsyncClient() as raw:
        answer = await raw.get(f"{api.url}/crdt/v1/constraints?limit=2")
        assert answer.links["next"]["url"].startswith("/crdt/v1/constraints?")
    for url in (api.url, f"{api.url}/crdt/"):
        async with AsyncClient(url) as client:
            found = await client.do(constraints.CONSTRAINTS, constraints.ListConstraints(limit=2))
            assert [each.id for each in found] == [f"c{number}" for number in range(5)]


@pytest.mark.parametrize("path", ["crdt", "/a//b", "/a b", '/"', "//host"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(SettingsError, match="base_path must be a path, as in /crdt/"):
        NodeSettings(base_path=path)
