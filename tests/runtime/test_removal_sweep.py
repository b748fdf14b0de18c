"""When removals go, and who holds them back."""

from constraint_crdt import GossipNode, exchange
from constraint_crdt.runtime.maintenance import RemovalSweep


class Scene:
    """A node that removed something, one peer that has heard of it and one that has not."""

    def __init__(self, *, most: int = 100, longest: float = 60.0) -> None:
        self.time = 0.0
        self.me, self.near, self.far = GossipNode("me"), GossipNode("near"), GossipNode("far")
        self.forgetting = RemovalSweep(self.me, most=most, longest=longest, now=lambda: self.time)
        for id_ in ("c1", "c2"):
            self.me.add_constraint(id_)
        for peer in (self.near, self.far):
            exchange(self.me, peer)
        for id_ in ("c1", "c2"):
            self.me.remove_constraint(id_)
        exchange(self.me, self.near)
        self.live = ["near", "far"]


def test_a_removal_goes_once_every_live_peer_has_acknowledged_it() -> None:
    scene = Scene()
    assert scene.forgetting.step(scene.live) == ""
    assert len(scene.forgetting) == 2
    exchange(scene.me, scene.far)
    assert scene.forgetting.step(scene.live) == ""
    assert len(scene.forgetting) == 0
    assert scene.forgetting.dropped == {"acknowledged": 2, "size": 0, "age": 0}


def test_who_holds_it_back_is_named_with_since_when_and_what_it_costs() -> None:
    scene = Scene()
    scene.time = 7.0
    (holding,) = scene.forgetting.holding(scene.live)
    assert (holding.node, holding.removals, holding.seconds) == ("far", 2, 7.0)
    assert holding.bytes == sum(len(cell.data) for cell in scene.me.state.rows.each(2))
    exchange(scene.me, scene.far)
    assert scene.forgetting.holding(scene.live) == []


def test_a_peer_that_went_holds_nothing_back() -> None:
    scene = Scene()
    scene.forgetting.step(["near"])
    assert len(scene.forgetting) == 0


def test_while_cut_off_they_are_kept() -> None:
    scene = Scene()
    scene.forgetting.step([])
    assert len(scene.forgetting) == 2


def test_too_many_or_too_old_ones_go_all_the_same_and_a_stale_peer_revives_nothing() -> None:
    for scene, reason in ((Scene(most=1), "size"), (Scene(longest=5.0), "age")):
        scene.time = 6.0
        assert scene.forgetting.step(scene.live) == reason
        assert scene.forgetting.dropped[reason] == 2
        exchange(scene.far, scene.me)
        assert len(scene.far.state.constraints) == len(scene.me.state.constraints) == 0
        assert scene.far.state == scene.me.state


def test_removals_found_at_the_start_are_watched_too() -> None:
    me = GossipNode("me")
    me.add_constraint("c1")
    me.remove_constraint("c1")
    assert len(RemovalSweep(me, most=1, longest=1.0, now=lambda: 0.0)) == 1
