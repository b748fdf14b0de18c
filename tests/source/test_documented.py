"""The tables on the page of the sources can be used, and the page names all that there is."""

import re
import tomllib
from pathlib import Path

import pytest

from constraint_crdt.sources import KINDS, FieldSettings, read_sources

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "sources.md").read_text()
BLOCKS = re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_tables_of_a_block_can_be_used(block: str) -> None:
    assert read_sources(tomllib.loads(block)["source"])


def test_the_page_has_an_example_of_each_kind() -> None:
    assert {table["kind"] for block in BLOCKS for table in tomllib.loads(block)["source"]} == set(KINDS)


def test_the_page_names_each_format_and_each_key() -> None:
    formats = {name for kind in KINDS.values() for name in kind.formats}
    keys = {key for kind in KINDS.values() for key in (*kind.needs, *kind.takes)} | set(FieldSettings.__struct_fields__)
    told = set(re.findall(r"\b\w+\b", PAGE))
    assert formats - told == set()
    assert keys - told == set()
