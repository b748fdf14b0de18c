"""Nodes with identities as a user starts them: three processes in three roles, and what logs and commands say."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.process import run_to_its_end
from tests.fleet.processes import NodeProcess, processes, seconds_until

from .fleets import Fleet

pytestmark = pytest.mark.processes


@pytest.fixture
def plant(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "plant", f"plant-{secrets.token_hex(4)}")


@pytest.fixture
def trio(plant: Fleet) -> Iterator[list[NodeProcess]]:
    """A router, a client of it, and a peer."""
    with processes(plant.root.fleet) as start:
        router = start("forge", "--identity", str(plant.certify("forge")), "--role", "router")
        seed = ("--connect", router.endpoints[0])
        client = start("anvil", "--identity", str(plant.certify("anvil", role="operator")), "--role", "client", *seed)
        yield [router, client, start("tongs", "--identity", str(plant.certify("tongs")), *seed)]


def finding(node: NodeProcess, check: str) -> dict[str, str]:
    """A finding of the node, as `doctor` shows it."""
    return next(each for each in node.get("diagnosis")["findings"] if each["check"] == check)


@pytest.mark.long
def test_three_roles_agree_and_say_how_they_link(trio: list[NodeProcess]) -> None:
    _, client, peer = trio
    client.run("add", "max_speed", "--when", "speed_mps <= 1.5")
    seconds_until(lambda: all(node.get("status")["peers"] == 2 for node in trio))
    seconds_until(lambda: all([each["id"] for each in node.get("constraints")] == ["max_speed"] for node in trio))
    seconds_until(lambda: len({node.get("status")["hash"] for node in trio}) == 1)
    assert {node.get("status")["links"] for node in trio} == {"certificates"}
    assert "only with nodes that have a certificate of the fleet" in client.run("status")
    assert "the certificate of tongs as operator of plant-" in finding(peer, "certificates")["what"]
    assert finding(peer, "seeds")["level"] == "ok"


@pytest.mark.long
def test_a_stolen_machine_is_revoked(plant: Fleet) -> None:
    """What an operator does: revoke, look at what it wrote, undo. The node is told, ends, and finds no way back."""
    with processes(plant.root.fleet) as start:
        forge = start("forge", "--identity", str(plant.certify("forge", role="operator")))
        seed = ("--connect", forge.endpoints[0])
        anvil = start("anvil", "--identity", str(plant.certify("anvil", role="member")), *seed)
        stolen = start("lathe", "--identity", str(plant.certify("lathe", role="operator")), *seed)
        stolen.run("add", "harmful", "--when", "v > 100.0")
        seconds_until(lambda: [each["id"] for each in anvil.get("constraints")] == ["harmful"])
        with pytest.raises(AssertionError, match="this node is a member of the fleet; ask an operator node"):
            anvil.run("fleet", "revoke", "lathe")
        assert "lathe would be revoked" in forge.run("fleet", "revoke", "lathe", "--dry-run")
        said = forge.run("fleet", "revoke", "lathe", "--reason", "stolen")
        assert "lathe is revoked: its links end, and what it writes from now on counts nowhere" in said
        assert "it wrote: harmful" in said
        seconds_until(stolen.has_ended)
        assert any("the key of node lathe was revoked by forge: make it a new identity" in line for line in stolen.log)
        assert "removed, as it wrote them: harmful" in forge.run("fleet", "revoke", "lathe", "--undo")
        seconds_until(lambda: all(node.get("constraints") == [] for node in (forge, anvil)))
        assert [each["node"] for each in anvil.get("members") if each["revoked"]] == ["lathe"]
        again = start("lathe", "--identity", str(plant.certify("lathe", role="operator")), *seed)
        again.run("add", "again", "--when", "v > 1.0")
        forge.run("add", "after", "--when", "v > 1.0")
        seconds_until(lambda: [each["id"] for each in anvil.get("constraints")] == ["after"])
        assert forge.get("status")["peers"] == anvil.get("status")["peers"] == 1
        assert "revoke" in forge.run("audit")


def test_a_name_that_is_not_the_own_is_refused(plant: Fleet) -> None:
    done = run_to_its_end("--identity", str(plant.certify("anvil")), "--name", "forge")
    assert done.returncode == 2
    assert "is of the node anvil, not forge: leave out `name`, or name another identity" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.long
def test_a_refused_node_runs_alone_and_says_why_once(plant: Fleet, tmp_path: Path) -> None:
    """Zenoh opens without an error, and tells of no refusal."""
    other = Fleet(tmp_path / "other", plant.root.fleet)
    with processes(plant.root.fleet) as start:
        forge = start("forge", "--identity", str(plant.certify("forge")))
        anvil = start("anvil", "--identity", str(other.certify("anvil")), "--connect", forge.endpoints[0])
        seconds_until(lambda: any("its certificate is of another fleet" in line for line in anvil.log))
        found = finding(anvil, "seeds")
        assert found["level"] == "fail"
        assert "its certificate is of another fleet, or not valid now by the clock of this machine" in found["what"]
        assert len([line for line in anvil.log if "of another fleet" in line]) == 1
        assert forge.get("status")["peers"] == anvil.get("status")["peers"] == 0
        assert not [line for line in forge.log if " warning " in line or " error " in line], "a stranger fills no log"


def test_an_insecure_node_says_so(tmp_path: Path) -> None:
    with processes() as start:
        node = start("forge", "--listen", "tcp/0.0.0.0:0", "--insecure")
        assert [line for line in node.log if "the links of forge are not protected" in line]
        assert node.get("status")["links"] == "none"
        assert "LINKS        not protected" in node.run("status")
        assert finding(node, "certificates")["level"] == "warn"
        assert "the links are not protected" in finding(node, "certificates")["what"]


def test_a_node_on_loopback_needs_neither_and_says_nothing(tmp_path: Path) -> None:
    with processes() as start:
        node = start("forge")
        assert node.get("status")["links"] == "loopback"
        assert "links" not in node.run("status").lower()
        assert finding(node, "certificates")["level"] == "ok"
        assert not [line for line in node.log if "protected" in line]


# --- invitations and renewal ----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_fleet_grows_by_invitations_and_remembers(tmp_path: Path) -> None:
    """The story of docs/security.md. A joined node starts again without the token, also while the operator is away."""
    plant = Fleet(tmp_path / "plant", f"plant-{secrets.token_hex(4)}")
    forge_folder, lathe_folder = plant.certify("forge"), tmp_path / "lathe"
    with processes(plant.root.fleet) as start:
        forge = start("forge", "--identity", str(forge_folder), "--join-listen", "127.0.0.1:0")
        token = forge.run("fleet", "invite").split()[-1]
        lathe = start("lathe", "--identity", str(lathe_folder), "--join", token)
        assert any("joined the fleet" in line and "as lathe (member)" in line for line in lathe.log)
        seconds_until(lambda: lathe.get("status")["peers"] == 1)
        assert [(each["node"], each["role"], each["certified_by"]) for each in forge.ask("fleet", "members")] == [
            ("forge", "operator", ""),
            ("lathe", "member", "forge"),
        ]
        assert forge.run("fleet", "invitations").count("\n") == 1, "the only one has no use left"

        before = (lathe_folder / "node.pem").read_bytes()
        replica = lathe.get("status")["replica"]
        assert lathe.run("fleet", "renew").startswith("lathe has a certificate until ")
        assert (lathe_folder / "node.pem").read_bytes() != before
        seconds_until(lambda: lathe.get("status")["peers"] == forge.get("status")["peers"] == 1)
        assert lathe.get("status")["replica"] == replica

        again = run_to_its_end("--name", "anvil", "--identity", str(tmp_path / "anvil"), "--join", token)
        assert (again.returncode, again.stderr.count("\n")) == (1, 1)
        assert "the invitation was used by lathe: ask for a new one" in again.stderr
        assert lathe.terminate() == 0
        lathe = start("lathe", "--identity", str(lathe_folder))
        seconds_until(lambda: lathe.get("status")["peers"] == 1)
