"""The tables on the page of the sources can be used, and the page names all that there is."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from constraint_crdt.runtime.settings import load_settings
from constraint_crdt.sources import KINDS, FieldSettings
from constraint_crdt.sources.reader import reader_of
from constraint_crdt.sources.robots import ros_decoder

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
PAGES = {name: (HOW_TO / f"{name}.md").read_text() for name in ("sources", "robots", "gateways")}
PAGE = PAGES["sources"]
TABLES = re.compile(r"^```toml\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = TABLES.findall(PAGE)
ALL_BLOCKS = [block for page in PAGES.values() for block in TABLES.findall(page)]


@pytest.mark.parametrize("block", ALL_BLOCKS, ids=range(len(ALL_BLOCKS)))
def test_the_tables_of_a_block_can_be_used(block: str, tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(block)
    sources = load_settings({}, {}, tmp_path / "node.toml").source
    assert sources
    for each in sources:
        if each.kind != "zenoh" or each.connect:
            reader_of(msgspec.structs.replace(each, ca="", password_file="", token_file=""))
        if each.type:
            ros_decoder(each.type)


def test_the_page_has_an_example_of_each_kind() -> None:
    assert {table["kind"] for block in BLOCKS for table in tomllib.loads(block)["source"]} == set(KINDS)


def test_the_page_names_each_format_and_each_key() -> None:
    formats = {name for kind in KINDS.values() for name in kind.formats}
    keys = {key for kind in KINDS.values() for key in (*kind.needs, *kind.takes)} | set(FieldSettings.__struct_fields__)
    told = set(re.findall(r"\b\w+\b", PAGE))
    assert formats - told == set()
    assert keys - told == set()
