"""Sites: groups of nodes that gossip with each other, and the few nodes of each site that speak with the other sites.

A node belongs to the site in the label `site` of its description; nodes without the label form a site of their own. A fleet of a
single site knows none of this.

Between two sites only *speakers* begin exchanges: `SPEAKERS` nodes of each site, chosen anew for each pair of sites by rendezvous
hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998). Every node computes a weight of each node
of the site, and the highest weights speak. So nodes with the same view of a site agree without a message, and the end of a node
moves only the pairs for which that node spoke.

Rules:

- A site as a whole begins as many exchanges with other sites as a single node with other nodes: about one per round. So the bytes
  between sites do not depend on the number of nodes in them. A change is pushed by speakers, to as many sites as a node pushes to
  nodes.
- The choice is about the beginning of exchanges only. A request of any node is answered: views of liveness differ.
- Nodes that failed count no more, until they speak. A node that sees no other node of its site speaks, so each part of a
  partitioned site has speakers of its own.
- The nodes next in rank speak too, each more seldom than the node before. Without these *stand-ins* two sites whose speakers cannot
  reach each other would stay apart, though other nodes of them could.
- A node whose site is not known here, as all are to a blank node, is asked like a node of the own site. So no site keeps a node
  from joining.
- Orders of nodes are kept, and follow each node that comes or goes: a round costs O(sites).
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from hashlib import blake2b
from itertools import islice

from constraint_crdt.crdt.cells import Cell
from constraint_crdt.crdt.clock import Replica
from constraint_crdt.protocol.peers import RandomSource
from constraint_crdt.types.nodes import NODE, RETIRE, node_value, retire_value
from constraint_crdt.types.view import IndexedView

SITE = "site"
"""The label with the site of a node."""

SPEAKERS = 2
"""Nodes of a site that speak with another site."""

STAND_INS = 2
"""Nodes next in rank, at most. Each pair of nodes that speak has to know clocks of each other, so few of them do."""

SELDOM = 8
"""A stand-in speaks so many times as seldom as the node before it in rank."""

MOST_AWAY = 0.5
"""The share of rounds that a node spends on other sites at most, while there are nodes to ask in its own."""


def weight(node: str, one: str, other: str) -> int:
    """The weight of a node for the pair of sites, in either order: the highest weights speak."""
    pair = sorted((one, other))
    data = [text.encode(errors="surrogatepass") for text in (*pair, node)]
    return int.from_bytes(blake2b(b"".join(len(each).to_bytes(4) + each for each in data), digest_size=8).digest())


def speakers(site: str, other: str, nodes: Iterable[str]) -> list[str]:
    """The nodes of `site` that speak with `other`: min(`SPEAKERS`, nodes) of these live ones, the highest weight first."""
    return [node for _, node in sorted((-weight(node, site, other), node) for node in set(nodes))[:SPEAKERS]]


class NodeSites(IndexedView):
    """The site that each node told, by its label; "" for a node without the label. Readings are O(lives of the node)."""

    KINDS = (NODE, RETIRE)

    def _clear(self) -> None:
        self._moved: set[str] = set(getattr(self, "_lives", ()))
        self._lives: dict[str, dict[Replica, str]] = {}
        self._labelled = 0

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        for cell in (old, new):
            if cell is None:
                continue
            if cell.kind == RETIRE:
                self._moved.update(life.node_id for life in retire_value(cell).lives if life.node_id in self._lives)
                continue
            lives = self._lives.setdefault(cell.replica.node_id, {})
            self._labelled -= bool(lives.pop(cell.replica, ""))
            if cell is new:
                lives[cell.replica] = site = dict(node_value(cell).labels).get(SITE, "")
                self._labelled += bool(site)
            self._moved.add(cell.replica.node_id)

    def __len__(self) -> int:
        return len(self._lives)

    def __repr__(self) -> str:
        return f"NodeSites({len(self)} nodes, {self._labelled} with a label)"

    @property
    def named(self) -> bool:
        """Some node has a site by name."""
        return self._labelled > 0

    def of(self, node: str) -> str | None:
        """The site of a node; None for a node without a description. Of several lives the last counts, as far as is known."""
        lives = self._lives.get(node)
        if not lives:
            return None
        if len(lives) == 1:
            return next(iter(lives.values()))
        return lives[max(lives, key=lambda life: (not self._rows.held(RETIRE, str(life)), self._rows.seq(life), life))]

    def take_moved(self) -> Set[str]:
        """The nodes whose site may have changed since the last call."""
        moved, self._moved = self._moved, set()
        return moved


class Sites:
    """The sites of a fleet and their speakers, as a node sees them."""

    def __init__(self, me: str, site: str = "") -> None:
        """`me`: this node; `site`: its site."""
        self._me = me
        self._site = site
        self._site_of: dict[str, str | None] = {me: site}
        self._members: dict[str, set[str]] = {site: {me}}
        self._failed: set[str] = set()
        self._orders: dict[tuple[str, str], list[tuple[int, str]]] = {}
        """By a site and the site it speaks with: (negative weight, node), so the first nodes speak."""
        self._shares: dict[str, float] | None = None
        self._near: list[str] | None = None
        self._spoke: dict[str, str] = {}
        """The node of each other site that spoke last."""

    def __repr__(self) -> str:
        return f"Sites({self._me} in {self._site!r}, {len(self._site_of)} nodes, {len(self._members)} sites)"

    def __contains__(self, node: object) -> bool:
        return node in self._site_of

    # --- what is known of nodes ------------------------------------------------------------------------------------------

    @property
    def site(self) -> str:
        """The site of this node."""
        return self._site

    @property
    def others(self) -> Set[str]:
        """The other sites."""
        return self._members.keys() - {self._site}

    @property
    def divided(self) -> bool:
        """There are other sites."""
        return len(self._members) > 1

    def of(self, node: str) -> str | None:
        """The site of a node; None if it is not known."""
        return self._site_of.get(node)

    @property
    def near(self) -> Sequence[str]:
        """The other nodes of the own site, and those of unknown sites, ordered. O(nodes) after a change."""
        if self._near is None:
            self._near = sorted(node for node, site in self._site_of.items() if site in (None, self._site) and node != self._me)
        return self._near

    def is_away(self, node: str) -> bool:
        """True for a node of another site."""
        return self._site_of.get(node) not in (None, self._site)

    def move(self, site: str) -> None:
        """This node belongs to this site from now on. O(nodes) for another site."""
        if site != self._site:
            self._site = site
            self._orders.clear()
            self.put(self._me, site)

    def put(self, node: str, site: str | None) -> None:
        """A node is there, in this site; None: its site is not known. O(sites) for a new node of the own site."""
        if node in self._site_of and self._site_of[node] == site:
            return
        self._take_out(node)
        self._near = None
        self._site_of[node] = site
        if site is None:
            return
        self._members.setdefault(site, set()).add(node)
        for (of, other), order in self._orders.items() if site == self._site else self._order_of_other(site):
            if of == site:
                insort(order, (-weight(node, site, other), node))

    def drop(self, node: str) -> None:
        """A node is not there any more. This node itself stays."""
        if node != self._me:
            self._take_out(node)
            self._failed.discard(node)

    def failed(self, node: str) -> None:
        """A node did not answer: it does not speak for its site, until it is heard."""
        if node != self._me and node not in self._failed:
            self._failed.add(node)
            self._shares = None

    def heard(self, node: str) -> None:
        """A message of a node arrived."""
        if node in self._failed:
            self._failed.discard(node)
            self._shares = None
        site = self._site_of.get(node)
        if site is not None and site != self._site:
            self._spoke[site] = node

    def _take_out(self, node: str) -> None:
        self._shares = self._near = None
        site = self._site_of.pop(node, None)
        if site is None:
            return
        self._members[site].discard(node)
        if not self._members[site]:
            del self._members[site]
            self._spoke.pop(site, None)
            self._orders.pop((site, self._site), None)
            self._orders.pop((self._site, site), None)
        for (of, other), order in self._orders.items() if site == self._site else self._order_of_other(site):
            if of == site:
                place = bisect_left(order, (-weight(node, site, other), node))
                if order[place : place + 1] == [(-weight(node, site, other), node)]:
                    del order[place]

    def _order_of_other(self, site: str) -> list[tuple[tuple[str, str], list[tuple[int, str]]]]:
        pair = site, self._site
        return [(pair, self._orders[pair])] if pair in self._orders else []

    # --- who speaks ------------------------------------------------------------------------------------------------------

    def _order(self, site: str, other: str) -> list[tuple[int, str]]:
        order = self._orders.get((site, other))
        if order is None:
            order = sorted((-weight(node, site, other), node) for node in self._members.get(site, ()))
            if self._site in (site, other):
                self._orders[site, other] = order
        return order

    def ranked(self, site: str, other: str) -> Iterator[str]:
        """The nodes of a site in the order in which they speak with another: first those that did not fail."""
        order = self._order(site, other)
        yield from (node for _, node in order if node not in self._failed)
        yield from (node for _, node in order if node in self._failed)

    def speakers(self, site: str, other: str) -> list[str]:
        """The nodes of a site that speak with another, as far as is known here."""
        return [node for node in islice(self.ranked(site, other), SPEAKERS) if node not in self._failed]

    @property
    def shares(self) -> Mapping[str, float]:
        """The other sites that this node speaks with: 1 as a speaker, less as a stand-in. O(sites) after a change, else O(1)."""
        if self._shares is None:
            found = {other: self._share(other) for other in sorted(self.others)}
            self._shares = {other: share for other, share in found.items() if share}
        return self._shares

    def _share(self, other: str) -> float:
        for rank, node in enumerate(islice(self.ranked(self._site, other), SPEAKERS + STAND_INS)):
            if node == self._me:
                return 1.0 if rank < SPEAKERS else SELDOM ** -(rank - SPEAKERS + 1.0)
        return 0.0

    def speaks_with(self) -> list[str]:
        """The sites that this node is a speaker for."""
        return [other for other, share in self.shares.items() if share == 1.0]

    def speaking(self) -> dict[str, list[str]]:
        """The speakers of the own site with the sites they speak with, and those of the others towards it. O(sites)."""
        found: dict[str, list[str]] = {}
        for other in sorted(self.others):
            for site, towards in ((self._site, other), (other, self._site)):
                for node in self.speakers(site, towards):
                    found.setdefault(node, []).append(towards)
        return found

    # --- whom to ask -----------------------------------------------------------------------------------------------------

    def choose(self, chance: RandomSource, *, alone: bool) -> str | None:
        """The other site to speak with in this round; None: stay in the own site. `alone`: no node of it can be asked now."""
        shares = self.shares
        total = sum(shares.values())
        if not total:
            return None
        share = total / (self._live_speakers() * len(self.others))
        if not alone and chance.random() >= min(share, MOST_AWAY):
            return None
        drawn = chance.random() * total
        for other, each in shares.items():
            drawn -= each
            if drawn < 0:
                return other
        return list(shares)[-1]

    def to_tell(self, most: int, chance: RandomSource) -> list[str]:
        """The other sites to push a change to: about `most` by all speakers of the own site together."""
        few = most / max(1, len(self.others) * self._live_speakers())
        return [other for other in self.speaks_with() if chance.random() < few]

    def _live_speakers(self) -> int:
        """The speakers of the own site for each pair: 1 or more."""
        return sum(1 for _ in islice((node for node in self._members[self._site] if node not in self._failed), SPEAKERS))

    def witnesses(self, other: str) -> list[str]:
        """The nodes whose evidence counts for another site: its speakers, and the node that spoke last."""
        known = self.speakers(other, self._site)
        last = self._spoke.get(other)
        return known if last is None or last in known else [*known, last]
