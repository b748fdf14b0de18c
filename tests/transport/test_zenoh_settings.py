"""What a person may ask of the Zenoh engine, and the sentence that refuses the rest."""

from typing import Any

import pytest

from constraint_crdt.transport import Peer, TransportError
from constraint_crdt.transport.topology import reachable_endpoints, usable_connects
from constraint_crdt.transport.zenoh import ZenohTransport
from constraint_crdt.transport.zenoh_startup import alive_key, peer_of

OWN = "tcp/127.0.0.1:7447"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"role": "boss"}, "'boss'"),
        ({"listen": ["foo"]}, "'foo'"),
        ({"listen": ["tcp/nowhere"]}, "'tcp/nowhere'"),
        ({"listen": ["tcp/127.0.0.1:99999"]}, "'tcp/127.0.0.1:99999'"),
        ({"listen": ["tls/127.0.0.1:1"]}, "'tls/127.0.0.1:1'"),
        ({"listen": ["tcp/127.0.0.1:7447#iface=lo"]}, "'tcp/127.0.0.1:7447#iface=lo'"),
        ({"connect": ["127.0.0.1:7447"]}, "'127.0.0.1:7447'"),
        ({"connect": ["tcp/127.0.0.1:0"]}, "'tcp/127.0.0.1:0'"),
        ({"role": "client"}, "router"),
        ({"role": "client", "connect": [OWN], "listen": [OWN]}, OWN),
        ({"lease": 0.0}, "0 s"),
        ({"answers_at_once": 0}, "0 requests"),
    ],
)
def test_what_cannot_work_is_refused_by_name(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(TransportError) as refused:
        ZenohTransport(**arguments)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_wildcard_is_reached_at_the_addresses_of_the_machine() -> None:
    addresses = ["192.0.2.7", "2001:db8::7"]
    assert reachable_endpoints(["tcp/0.0.0.0:1", OWN], addresses) == ("tcp/192.0.2.7:1", OWN)
    assert reachable_endpoints(["tcp/[::]:1"], addresses) == ("tcp/192.0.2.7:1", "tcp/[2001:db8::7]:1")


def test_endpoints_that_others_sent_are_taken_with_care() -> None:
    sent = ["tcp/a:1", "nonsense", "tcp/a:1", "tcp/0.0.0.0:7", "tcp/b:0", OWN, "", "tcp/[::1]:2", 'tcp/a"x:1\n']
    assert usable_connects(sent, [OWN]) == ("tcp/a:1", "tcp/[::1]:2")


@pytest.mark.parametrize("name", ["a", "a/b", "*", "%", "é", "@x", "a%2Fb"])
def test_a_key_gives_its_peer_back(name: str) -> None:
    peer = Peer(name, "0123456789abcdef01234567")
    assert peer_of(alive_key("f/*", peer)) == peer
    assert len(alive_key("f/*", peer).split("/")) == 5


@pytest.mark.parametrize("key", ["", "a/b", "a/b/alive/x/y", "a/b/alive//0123456789abcdef01234567", "a/b/alive/%FF/" + "0" * 16])
def test_a_foreign_key_is_nobodys(key: str) -> None:
    assert peer_of(key) is None
