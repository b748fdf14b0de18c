"""The operations to delete, restore and edit a tile. `operations.tiles` has the requests and responses."""

from typing import TYPE_CHECKING, Final

from constraint_crdt.operations.command import Command, CompositeCommand, Flag, UsageError
from constraint_crdt.operations.operation import DELETE, PATCH, POST, Body, Operation, Right, not_found
from constraint_crdt.operations.tiles import (
    CONSTRAINT_FLAG,
    PLACE_FLAGS,
    TILE_PATH,
    AtTile,
    EditedTile,
    EditTile,
    TileRemoved,
    TileReport,
    names_in_body,
    present_tile,
)

if TYPE_CHECKING:
    from argparse import Namespace

    from constraint_crdt.client.blocking import Client
    from constraint_crdt.runtime.node import Node


async def _delete(node: "Node", request: AtTile) -> TileRemoved:
    tile = present_tile(node, request)
    await node.tiles.delete(tile.room, tile.id)
    return TileRemoved(room=tile.room, id=tile.id)


def show_delete_tile(answer: TileRemoved, _: AtTile, __: "Namespace") -> str:
    """The deletion, in a sentence."""
    return f"{answer.room} {answer.id}: deleted; `tile restore` brings it back for a while"


DELETE_TILE: Final = Operation(
    name="delete_tile",
    method=DELETE,
    path=TILE_PATH,
    right=Right.MEASURE,
    summary="Take a tile away.",
    about="Delete a tile, restorable for a while.",
    request=AtTile,
    response=TileRemoved,
    run=_delete,
    by_segment=True,
    command=Command(
        name="tile rm",
        help="delete a tile; it can be restored for a while",
        group="state",
        flags=PLACE_FLAGS,
        show=show_delete_tile,
    ),
)


async def _restore(node: "Node", request: AtTile) -> TileReport:
    try:
        return await node.tiles.restore(request.room, request.id)
    except KeyError:
        raise not_found(f"tile {request.id!r} in room {request.room!r} is not deleted, or has been purged since") from None


def show_restore_tile(answer: TileReport, _: AtTile, __: "Namespace") -> str:
    """The tile that is back, in a sentence."""
    return f"{answer.room} {answer.id}: restored, {answer.size} bytes"


RESTORE_TILE: Final = Operation(
    name="restore_tile",
    method=POST,
    path=TILE_PATH + "/restore",
    right=Right.MEASURE,
    summary="Undo its deletion.",
    about="Undo the deletion of a tile.",
    request=AtTile,
    response=TileReport,
    run=_restore,
    by_segment=True,
    command=Command(
        name="tile restore", help="undo the deletion of a tile", group="state", flags=PLACE_FLAGS, show=show_restore_tile
    ),
)


async def _edit(node: "Node", request: EditTile) -> TileReport:
    tile = present_tile(node, request)
    for field, elements, among in (
        ("remove_tags", request.remove_tags, tile.tags),
        ("remove_constraints", request.remove_constraints, tile.constraints),
    ):
        for element in elements:
            if element not in among:
                detail = f"`{field}`: tile {tile.id!r} in room {tile.room!r} has no {field[7:-1]} {element!r}"
                raise not_found(detail, field)
    with names_in_body("add_tags", "add_constraints"):
        return await node.tiles.edit(
            request.room,
            request.id,
            add_tags=request.add_tags,
            remove_tags=request.remove_tags,
            add_constraints=request.add_constraints,
            remove_constraints=request.remove_constraints,
        )


_ELEMENTS: Final = {**PLACE_FLAGS, "constraint": CONSTRAINT_FLAG, "tags": Flag(nargs="*", metavar="TAG")}


def _elements(flags: "Namespace") -> tuple[list[str], list[str]]:
    """The tags and the constraints. Raises `UsageError` if there are none."""
    if not flags.tags and not flags.constraint:
        raise UsageError("there is nothing to do: name a TAG, or --constraint ID")
    return flags.tags, flags.constraint


def _tag(client: "Client", flags: "Namespace") -> TileReport:
    tags, constraints = _elements(flags)
    return client.edit_tile(flags.room, flags.id, add_tags=tags, add_constraints=constraints)


def _untag(client: "Client", flags: "Namespace") -> TileReport:
    tags, constraints = _elements(flags)
    return client.edit_tile(flags.room, flags.id, remove_tags=tags, remove_constraints=constraints)


def show_edit_tile(answer: TileReport, __: "Namespace") -> str:
    """The tags and constraints of the tile, in a sentence."""
    tags, constraints = ", ".join(answer.tags) or "none", ", ".join(answer.constraints) or "none"
    return f"{answer.room} {answer.id}: tags {tags}; constraints {constraints}"


EDIT_TILE: Final = Operation(
    name="edit_tile",
    method=PATCH,
    path=TILE_PATH,
    right=Right.MEASURE,
    summary="Add tags and constraints, or take some away.",
    about="Add tags and constraints to a tile, or take some away, at once.",
    request=EditTile,
    response=TileReport,
    run=_edit,
    body=Body(shape=EditedTile),
    by_segment=True,
    command=CompositeCommand(
        name="tile tag",
        help="add tags, or constraints that it is about, to a tile",
        group="state",
        options=_ELEMENTS,
        call=_tag,
        show=show_edit_tile,
    ),
    more_commands=(
        CompositeCommand(
            name="tile untag",
            help="take tags, or constraints that it is about, from a tile",
            group="state",
            options=_ELEMENTS,
            call=_untag,
            show=show_edit_tile,
        ),
    ),
)
