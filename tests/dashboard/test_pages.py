"""Serving the dashboard: what is sent, what a browser may keep, and what the files may not say."""

import re
from collections.abc import AsyncIterator
from importlib.resources import files

import httpx
import pytest
from starlette.applications import Starlette

from constraint_crdt.dashboard import MEDIA_TYPES, dashboard_pages
from constraint_crdt.model import EventKind

STATIC = files("constraint_crdt.dashboard") / "static"
NAMES = sorted(each.name for each in STATIC.iterdir())
SCRIPTS = [name for name in NAMES if name.endswith(".js")]
LATER = ["uplot.js"]
"""Loaded once there is something to draw."""
INDEX = (STATIC / "index.html").read_text()


def source(name: str) -> str:
    return (STATIC / name).read_text()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=Starlette(routes=dashboard_pages()))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as asking:
        yield asking


@pytest.mark.parametrize("name", NAMES)
async def test_each_file_is_served_and_not_sent_again(client: httpx.AsyncClient, name: str) -> None:
    path = "/" if name == "index.html" else f"/dashboard/{name}"
    first = await client.get(path)
    assert first.status_code == 200
    assert first.text == source(name)
    assert first.headers["content-type"].partition(";")[0] == MEDIA_TYPES[name[name.rindex(".") :]]
    assert first.headers["cache-control"] == "no-cache"
    tag = first.headers["etag"]
    for held in (tag, f'"another", W/{tag}', "*"):
        again = await client.get(path, headers={"if-none-match": held})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert (await client.get(path, headers={"if-none-match": '"another"'})).status_code == 200
    head = await client.head(path)
    assert (head.status_code, head.content) == (200, b"")


async def test_what_is_not_there_is_not_there(client: httpx.AsyncClient) -> None:
    for path in ("/dashboard/", "/dashboard/index.html", "/dashboard/../pages.py", "/dashboard/%2e%2e/pages.py", "/index.html"):
        assert (await client.get(path)).status_code == 404


async def test_the_page_may_reach_its_own_node_only(client: httpx.AsyncClient) -> None:
    policy = (await client.get("/")).headers["content-security-policy"]
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))
    assert allowed["default-src"] == "'none'"
    assert allowed["script-src"] == allowed["style-src"] == allowed["connect-src"] == "'self'"
    assert allowed["frame-ancestors"] == allowed["base-uri"] == allowed["form-action"] == "'none'"
    assert "unsafe" not in policy
    assert "http" not in policy


def test_every_file_that_is_named_is_there_and_every_module_is_loaded_at_once() -> None:
    named = set(re.findall(r'(?:href|src)="/dashboard/([^"]+)"', INDEX))
    assert named <= set(NAMES)
    assert set(SCRIPTS) - named == set(LATER)
    for name in SCRIPTS:
        assert set(re.findall(r'from "\./([^"]+)"', source(name))) <= set(SCRIPTS)


@pytest.mark.slow
def test_every_export_is_used_and_every_import_is_exported() -> None:
    exported = {
        (name, each)
        for name in SCRIPTS
        for each in re.findall(r"^export (?:async )?(?:const|function|class) (\w+)", source(name), re.MULTILINE)
    }
    imported = {
        (module, each.strip())
        for name in SCRIPTS
        for names, module in re.findall(r'^import \{([^}]+)\} from "\./([^"]+)"', source(name), re.MULTILINE)
        for each in names.split(",")
    }
    assert imported == exported & imported
    used_within = {(name, each) for name, each in exported if len(re.findall(rf"\b{each}\b", source(name))) > 1}
    assert exported - imported <= used_within


def test_every_element_that_a_script_asks_for_is_in_the_page() -> None:
    ids = set(re.findall(r'\bid="([^"]+)"', INDEX))
    for name in SCRIPTS:
        for asked in re.findall(r'byId\("([^"]+)"\)', source(name)):
            assert asked in ids, f"{name} asks for #{asked}"


@pytest.mark.parametrize("name", NAMES)
def test_no_file_names_another_host_or_writes_html(name: str) -> None:
    text = source(name).replace("http://www.w3.org/2000/svg", "")
    assert "http:" not in text
    assert "https:" not in text
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "new Function", "document.write"):
        assert forbidden not in text
    if name == "index.html":
        assert "style=" not in text
        assert not re.search(r"\son\w+=", text)
        assert not re.search(r"<script(?![^>]*\ssrc=)", text)
    opening = text.lstrip()
    if name.endswith((".js", ".css")):
        assert opening.startswith(("//", "/*")), "a file says what it is for"


def test_colours_are_defined_where_they_are_used() -> None:
    style = source("style.css")
    defined = set(re.findall(r"^\s*--([\w-]+):", style, re.MULTILINE)) | set(re.findall(r"\{ --([\w-]+):", style))
    used = set(re.findall(r"var\(--([\w-]+)\)", style))
    canvases = {each for name in SCRIPTS for each in re.findall(r'colour\("([\w-]+)"\)', source(name))}
    assert used | canvases <= defined


def test_every_kind_of_event_has_words() -> None:
    kinds = {kind.value for kind in EventKind} - {EventKind.MISSED.value} | {"unknown"}  # said to programs; a turn on a node
    words, filters = re.findall(r"^const (?:WORDS|FILTERS) = {\n(.*?)^};", source("event_list.js"), re.MULTILINE | re.DOTALL)
    told = set(re.findall(r'^  "?([\w ]+)"?: \["', words, re.MULTILINE))
    assert kinds <= told
    assert told - kinds == {"gap", "dropped"}
    assert set(re.findall(r'"([\w ]+)"', filters)) == told


def _luminance(colour: str) -> float:
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    ("ink", "paper"),
    [
        ("ink", "card"), ("ink", "paper"), ("muted", "card"), ("muted", "sunk"), ("link", "card"), ("bad", "card"),
        ("warn", "card"), ("warn", "warn-wash"), ("good", "good-wash"), ("muted", "calm-wash"), ("on-accent", "accent"),
        ("ink", "warn-wash"), ("ink", "level-none"), ("muted", "gone"), ("bad", "good-wash"),
        *(("ink", f"level-{step}") for step in range(5)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("theme", [0, 1])
def test_text_can_be_read_on_what_it_stands_on(ink: str, paper: str, theme: int) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5 at least."""
    colours = dict(re.findall(r"--([\w-]+): light-dark\((.+?)\);", source("style.css")))
    lights = sorted(_luminance(colours[name].split(", ")[theme]) for name in (ink, paper))
    assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5
