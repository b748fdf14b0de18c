"""What a step asks that adds to a summary: a sketch, a Bloom filter, values that decay, the increments of clients.

The other half of `writes`: how a node does it, what the log is to be told, when it may refuse, and how to tell that it was done.
"""

from collections.abc import Mapping
from typing import TypeAlias

from constraint_crdt.plato.rooms import apply_delta
from constraint_crdt.plato.shapes import PlatoCounter, PlatoDelta
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.simulation.models import ROOM, Inserted, Left, Model, Said, Shape, Taken, Tallied, Values
from constraint_crdt.simulation.steps import Decay, FoldRates, Increment, Insert, Rate, Tally
from constraint_crdt.types.bloom import BloomCRDT, BloomShape
from constraint_crdt.types.decay import DECAY, RATE
from constraint_crdt.types.sketch import SketchCRDT, SketchShape

Summing: TypeAlias = Tally | Insert | Rate | FoldRates | Decay | Increment


def do(node: GossipNode, step: Summing) -> None:
    """Have the node do it, as the running node does. Raises as the node does."""
    state = node.state
    match step:
        case Tally():
            sketch = _sketch(node, step)
            node.write(lambda me: sketch.record(step.item, step.count, node=me))
        case Insert():
            bloom = _bloom(node, step)
            node.write(lambda me: bloom.insert(step.item, node=me))
        case Rate():
            state.rates.track(step.half_lives)
            node.write(lambda me: state.rates.record(me, step.satisfied, step.violated, constraint=step.id))
        case FoldRates():
            node.write(lambda me: state.rates.fold(step.ids, node=me))
        case Decay():
            counter = state.decay(step.name, step.half_life)
            node.write(lambda me: counter.record(step.amount, node=me))
        case Increment():
            counts = PlatoCounter(node=step.client, seq=step.seq, satisfied_delta=step.satisfied, violations_delta=step.violated)
            delta = PlatoDelta(node=step.client, seq=step.seq, counter=counts, constraints=[], position=None)
            node.write(lambda me: apply_delta(state, ROOM, delta, me))


def _sketch(node: GossipNode, step: Tally) -> SketchCRDT:
    sketches = node.state.sketches
    return sketches[step.name] if step.name in sketches else sketches.open(step.name, SketchShape(step.width, step.depth))


def _bloom(node: GossipNode, step: Insert) -> BloomCRDT:
    blooms = node.state.blooms
    return blooms[step.name] if step.name in blooms else node.state.bloom(step.name, step.expected, step.wrong)


def said(node: GossipNode, step: Summing, model: Model, *, writes_on: bool) -> tuple[Said, ...]:
    """What the log is to be told; nothing if nothing is to be written. `model`: as the node is, before it does it."""
    match step:
        case Tally():
            shape: Shape = model.sketches.meant(step.name) or SketchShape(step.width, step.depth)
            return (Tallied(step.name, shape, step.item, step.count),) if step.count else ()
        case Insert():
            shape = model.filters.meant(step.name) or BloomShape.of(step.expected, step.wrong)
            return (Inserted(step.name, shape, step.item),)
        case Rate():
            if not step.satisfied and not step.violated:
                return ()
            key, own = step.id or "", node.time.own()
            held = _held(node, model, RATE, key, writes_on=writes_on)
            counted = dict.fromkeys(step.half_lives, (float(step.satisfied), float(step.violated)))
            return (Left(RATE, key, own, _plus(held, counted)),)
        case FoldRates():
            return _folded(node, step, model, writes_on=writes_on)
        case Decay():
            held = _held(node, model, DECAY, step.name, writes_on=writes_on)
            values = held | _plus(held, {step.half_life: (step.amount,)})
            return (Left(DECAY, step.name, node.time.own(), values),)
        case Increment():
            known = model.knows(step.client, step.seq)
            return () if known else (Taken(step.client, step.seq, (step.satisfied, step.violated)),)


def _held(node: GossipNode, model: Model, kind: int, key: str, *, writes_on: bool) -> Values:
    """What is left now in the node's own cell. A life that begins has none."""
    return model.decays.left(kind, key, node.replica, node.time.own()) if writes_on else {}


def _plus(held: Mapping[float, tuple[float, ...]], more: Mapping[float, tuple[float, ...]]) -> Values:
    """The half-lives of `more`, each with what is held at it."""
    return {
        half_life: tuple(a + b for a, b in zip(held.get(half_life, (0.0,) * len(values)), values, strict=True))
        for half_life, values in more.items()
    }


def _folded(node: GossipNode, step: FoldRates, model: Model, *, writes_on: bool) -> tuple[Said, ...]:
    """What is left of the node's own cells goes to that of none in particular, at the half-lives that it tracks."""
    own = node.time.own()
    found = {id_: held for id_ in step.ids if (held := _held(node, model, RATE, id_, writes_on=writes_on))}
    if not found:
        return ()
    nothing: Values = dict.fromkeys(node.state.rates.half_lives, (0.0, 0.0))
    total = nothing
    for held in (_held(node, model, RATE, "", writes_on=writes_on), *found.values()):
        total = _plus(held, total)
    return (Left(RATE, "", own, total), *(Left(RATE, id_, own, {}) for id_ in found))


def may_refuse(node: GossipNode, step: Summing, model: Model) -> bool:
    """True if the name stands for a table of other dimensions than those that the node's own row has."""
    match step:
        case Tally():
            own, meant = model.sketches.shape(step.name, node.replica), model.sketches.meant(step.name)
        case Insert():
            own, meant = model.filters.shape(step.name, node.replica), model.filters.meant(step.name)
        case _:
            return False
    return own is not None and own != meant


def is_done(node: GossipNode, step: Summing) -> bool:
    """True if the node itself reads what it was asked to write."""
    state = node.state
    match step:
        case Tally():
            return not step.count or state.sketches[step.name].estimate(step.item) >= step.count
        case Insert():
            return step.item in state.blooms[step.name]
        case Rate():
            key = step.id or ""
            found = (state.rates.rates(half_life, key, node.node_id) for half_life in step.half_lives)
            return all(each.satisfied >= step.satisfied and each.violated >= step.violated for each in found)
        case FoldRates():
            return all(state.rows.get(RATE, id_, node.replica) is None for id_ in step.ids)
        case Decay():
            return state.decay(step.name, step.half_life).node_value(node.node_id) >= step.amount
        case Increment():
            return state.increments.knows(ROOM, step.client, step.seq)
