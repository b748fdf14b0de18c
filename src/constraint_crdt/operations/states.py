"""The operations on whole states: export the state of a node as a state file, and merge a state file into a node."""

from typing import TYPE_CHECKING, Any, Final

import msgspec

from constraint_crdt.operations.operation import GET, JSON, POST, Answer, Body, Empty, Operation

if TYPE_CHECKING:
    from constraint_crdt.runtime.node import Node

MAX_IMPORT_BYTES: Final = 64 * 1024 * 1024


class ImportState(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v1/import`."""

    content: bytes
    """A state file."""


class ImportReport(msgspec.Struct, frozen=True):
    """The effect of merging a state."""

    changed: bool
    cells: int
    """New cells."""
    constraints: int
    """Constraints added, removed or changed."""


async def _export(node: "Node", _: Empty) -> bytes:
    return (await node.export_state()).encode()


EXPORT: Final = Operation(
    name="export",
    method=GET,
    path="/v1/export",
    summary="Everything the node knows, as a state file.",
    request=Empty,
    response=bytes,
    run=_export,
    media_type=JSON,
    document=Answer(dict[str, Any]),
    patience=lambda _: 60.0,
)


async def _import(node: "Node", request: ImportState) -> ImportReport:
    return await node.import_state(request.content, max_bytes=MAX_IMPORT_BYTES)


IMPORT_STATE: Final = Operation(
    name="import_state",
    method=POST,
    path="/v1/import",
    summary="Merge a state file into the node.",
    request=ImportState,
    response=ImportReport,
    run=_import,
    body=Body(limit=MAX_IMPORT_BYTES, field="content"),
    positional=("content",),
    patience=lambda _: 60.0,
)
