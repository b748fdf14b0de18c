"""Budgets: how long an acquire takes, beside a lock of etcd; and never more holders than the limit, on nodes killed and cut apart.

    python benchmarks/budgets.py [--nodes 10] [--limit 3] [--seconds 300] [--asked 600] [--calm 16] [--json] [--check]

Latencies: of an acquire where the rights are local, by a program that has the node in it and by the HTTP API of a node process;
where they are lent by another node first; and of a lock by etcd (one member, on the same disk), by its HTTP gateway: in the same
run, so that they compare. Connections are kept.

Then hosts in network namespaces. Three, each with a node and a member of etcd, of which one is cut from the others: what is granted
there and on the other side. And ten, with a node and two workers each that acquire, work for some milliseconds and release, and
report to a judge, which counts holders; now and then a node is killed and started again, or the network is cut in two. Not all
that is asked for can be served meanwhile: the workers ask for more. It needs root or user namespaces; `--without-cut` leaves all
of this out.
"""

import argparse
import asyncio
import base64
import contextlib
import http.client
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from report import Row, machine, show

from constraint_crdt import Node
from constraint_crdt.client import ClientError
from constraint_crdt.client.blocking import AsyncClient
from constraint_crdt.runtime.settings import NodeSettings

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.fleet.processes import seconds_until
from tests.network.holders import Judge, fleet_with_budget, judged
from tests.network.hosts import Connection, Host, Network, NetworkNode, network
from tests.network.switch import enter_namespaces

LOCAL_MS = 2.0
"""Milliseconds of a local acquire by HTTP, median, at most."""

ETCD_TIMES = 5.0
"""An acquire in the node's process, with local rights, is at least so many times as fast as a lock of etcd."""

ANSWER_SECONDS = 5.0
"""Seconds for which an answer of etcd is waited for."""

CUT_SECONDS = 5.0
"""Seconds from the cut to the first look: the members elect another leader meanwhile."""

SERVED = 200.0
"""Acquires a second, at least, while nodes are killed and cut apart."""

CALM = 16.0
"""Seconds between two disturbances, at most."""

WORKERS = 2
"""Those of a node, then."""

LEASE = 2.0
SKEW = 0.5
SAMPLES = 300


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class NodeProcess:
    """A node in a process of its own."""

    def __init__(self, name: str, folder: Path, seed: str | None) -> None:
        self.name, self.folder, self.seed = name, folder, seed
        self.api, self.listen = free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self.api}"

    def start(self) -> None:
        """Start the process, or start it again with its store."""
        connect = [] if self.seed is None else ["--connect", self.seed]
        words = [
            sys.executable, "-m", "constraint_crdt", "node", "--name", self.name, "--max-skew", str(SKEW), *connect,
            "--store", str(self.folder / f"{self.name}.db"), "--api", f"127.0.0.1:{self.api}",
            "--listen", f"tcp/127.0.0.1:{self.listen}",
        ]  # fmt: skip
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@asynccontextmanager
async def fleet(count: int) -> AsyncIterator[list[NodeProcess]]:
    """Node processes that see each other."""
    with tempfile.TemporaryDirectory() as folder:
        nodes: list[NodeProcess] = []
        for number in range(count):
            seed = f"tcp/127.0.0.1:{nodes[0].listen}" if nodes else None
            nodes.append(NodeProcess(f"n{number}", Path(folder), seed))
            nodes[-1].start()
        try:
            async with asyncio.timeout(180):
                while not await live(nodes):  # noqa: ASYNC110 - of other processes
                    await asyncio.sleep(0.5)
            yield nodes
        finally:
            for node in nodes:
                node.kill()


async def live(nodes: list[NodeProcess]) -> bool:
    """True if each node sees all others."""
    try:
        for node in nodes:
            async with AsyncClient(node.url) as client:
                if (await client.status()).peers < len(nodes) - 1:
                    return False
    except ClientError:
        return False
    return True


async def known(client: AsyncClient, name: str) -> None:
    """Wait until a node knows a budget."""
    while all(each.name != name for each in await client.budgets()):  # noqa: ASYNC110 - of another process
        await asyncio.sleep(0.01)


async def latencies(nodes: list[NodeProcess]) -> tuple[list[Row], float]:
    """Of an acquire with the rights at hand, and of one whose rights come from another node."""
    async with AsyncClient(nodes[0].url) as first, AsyncClient(nodes[1].url) as second:
        await first.define_budget("local", limit=100, lease=60.0, nodes=["n0"])
        times = []
        for _ in range(SAMPLES):
            began = time.perf_counter()
            hold = await first.acquire("local")
            times.append(time.perf_counter() - began)
            await first.release_hold("local", hold.hold)
        local = 1000 * statistics.median(times)
        away = []
        for number in range(20):
            name = f"away-{number}"
            await first.define_budget(name, limit=1, lease=60.0, nodes=["n0"])
            await known(second, name)
            began = time.perf_counter()
            hold = await second.acquire(name, wait=20.0)
            away.append(time.perf_counter() - began)
            await second.release_hold(name, hold.hold)
            await first.remove_budget(name)
    return [
        Row("acquire with local rights, by HTTP: median", local, "ms", LOCAL_MS),
        Row("acquire with rights of another node: median", 1000 * statistics.median(away), "ms"),
    ], local


async def embedded(folder: Path) -> float:
    """The median of an acquire by a program that has the node, with a store, in its process; in ms."""
    settings = NodeSettings(name="embedded", store=str(folder / "embedded.db"), discover=False, max_skew=SKEW)
    async with Node(settings=settings) as node:
        await node.budgets.define("local", 100, lease=60.0)
        times = []
        for _ in range(SAMPLES):
            began = time.perf_counter()
            async with node.budget("local"):
                times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def etcd_lock() -> float | None:
    """The median of a lock of etcd in ms; None without etcd."""
    if shutil.which("etcd") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        url, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{free_port()}"
        words = ["etcd", "--data-dir", folder, "--listen-client-urls", url, "--advertise-client-urls", url]
        words += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

        def call(path: str, **body: object) -> dict[str, str]:
            connection.request("POST", f"/v3/{path}", json.dumps(body).encode())
            found: dict[str, str] = json.loads(connection.getresponse().read())
            return found

        try:
            for _ in range(100):
                try:
                    lease = call("lease/grant", TTL=60)["ID"]
                    break
                except (OSError, http.client.HTTPException):  # it does not listen yet
                    connection.close()
                    time.sleep(0.1)
            name, times = base64.b64encode(b"dock").decode(), []
            for _ in range(SAMPLES):
                began = time.perf_counter()
                key = call("lock/lock", name=name, lease=lease)["key"]
                times.append(time.perf_counter() - began)
                call("lock/unlock", key=key)
        finally:
            connection.close()
            process.kill()
            process.wait()
    return 1000 * statistics.median(times)


# --- a cut network -----------------------------------------------------------------------------------------------------------


class Member:
    """A member of etcd on a host."""

    def __init__(self, net: Network, host: Host, name: str, cluster: str, folder: Path) -> None:
        peer, client = f"http://{host.address}:2380", "http://127.0.0.1:2379"
        words = [
            "etcd",
            "--name",
            name,
            "--data-dir",
            str(folder / name),
            "--listen-client-urls",
            client,
            "--advertise-client-urls",
        ]
        words += [client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", cluster]
        self._net, self._host = net, host
        self.process = subprocess.Popen(
            words,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: enter_namespaces(host.namespaces),  # noqa: PLW1509 - the child has a single thread
        )

    def call(self, path: str, **body: object) -> dict[str, str]:
        """The answer of its HTTP gateway. Raises `OSError` without one in time, and for an error."""
        made = Connection(lambda: self._net.socket(self._host), 2379)
        made.timeout = ANSWER_SECONDS
        with contextlib.closing(made) as connection:
            connection.request("POST", f"/v3/{path}", json.dumps(body))
            answer = connection.getresponse()
            found: dict[str, str] = json.loads(answer.read())
        if answer.status != 200:
            raise OSError(f"{path}: {found}")
        return found

    def lock(self, lease: str) -> float | None:
        """Seconds of a lock, which is ended; None without an answer."""
        began = time.perf_counter()
        try:
            key = self.call("lock/lock", name=base64.b64encode(b"dock").decode(), lease=lease)["key"]
            took = time.perf_counter() - began
            self.call("lock/unlock", key=key)
        except (OSError, http.client.HTTPException):
            return None
        return took


def acquire(node: NetworkNode) -> float | None:
    """Seconds of an acquire, which is released; None for a refusal."""
    with contextlib.closing(node.connection()) as connection:
        connection.connect()
        began = time.perf_counter()
        try:
            hold = node.ask_on(connection, "budgets/dock/acquire", {})
        except AssertionError:
            return None
        took = time.perf_counter() - began
        node.ask_on(connection, "budgets/dock/release", {"hold": hold["hold"]})
    return took


def figures(what: str, times: Sequence[float | None]) -> list[Row]:
    """How many were granted, and how soon."""
    granted = [each for each in times if each is not None]
    rows = [Row(f"{what}: granted", len(granted), f"of {len(times)}")]
    return rows + ([Row(f"{what}: median", 1000 * statistics.median(granted), "ms")] if granted else [])


def while_cut() -> list[Row]:
    """What is granted on both sides of a cut, beside etcd."""
    net = Network(1)
    with tempfile.TemporaryDirectory() as folder:
        members: list[Member] = []
        try:
            fleet = fleet_with_budget(net, ["a", "b", "c"], Path(folder), 3, 60.0)
            nodes, hosts = list(fleet.nodes.values()), [node.host for node in fleet.nodes.values()]
            rows = figures("all linked: acquire", [acquire(nodes[0]) for _ in range(100)])
            lease = None
            if shutil.which("etcd") is not None:
                cluster = ",".join(f"m{number}=http://{host.address}:2380" for number, host in enumerate(hosts))
                members += [Member(net, host, f"m{number}", cluster, Path(folder)) for number, host in enumerate(hosts)]
                seconds_until(lambda: granted(members[0]) is not None)
                lease = granted(members[0])
                rows += figures("all linked: lock of etcd, three members", [members[0].lock(lease or "") for _ in range(100)])
            fleet.cut(["a"], ["b", "c"])
            time.sleep(CUT_SECONDS)
            for side, place, of in (("cut off", 0, 3), ("the other side", 1, 100)):
                rows += figures(f"{side}: acquire", [acquire(nodes[place]) for _ in range(100)])
                if lease is not None:
                    rows += figures(f"{side}: lock of etcd", [members[place].lock(lease) for _ in range(of)])
        finally:
            for member in members:
                member.process.kill()
                member.process.wait()
            net.close()
    return rows


def granted(member: Member) -> str | None:
    """A lease of etcd; None before the members found each other."""
    with contextlib.suppress(OSError, http.client.HTTPException, KeyError):
        return member.call("lease/grant", TTL=600)["ID"]
    return None


def while_disturbed(count: int, limit: int, seconds: float, asked: float, calm: float) -> list[Row]:
    """Holders against the limit, and how many are served, while nodes are killed and cut apart."""
    judge = Judge(limit)
    with tempfile.TemporaryDirectory() as folder, network() as net:
        names = [f"n{number}" for number in range(count)]
        fleet = fleet_with_budget(net, names, Path(folder), limit, LEASE, "--max-skew", str(SKEW))
        kills, cuts = judged(fleet, "dock", judge, seconds, asked, Random(1), WORKERS, calm)
    times = sorted(judge.times)
    served, note = judge.acquired / seconds, f"{kills} kills, {cuts} cuts, {asked:g}/s asked for"
    return [
        Row(f"most holders at once, limit {limit}", float(judge.most), "", float(limit), note=note),
        Row(f"from one acquire to the next, {count} processes", 1000 / served, "ms", 1000 / SERVED, note=f"{served:.0f}/s"),
        Row("an acquire meanwhile: median", 1000 * statistics.median(times), "ms"),
        Row("an acquire meanwhile: 99 of 100", 1000 * times[int(0.99 * len(times))], "ms"),
    ]


async def measured() -> list[Row]:
    """The latencies."""
    async with fleet(2) as nodes:
        rows, local = await latencies(nodes)
    with tempfile.TemporaryDirectory() as folder:
        within = await embedded(Path(folder))
    rows.append(Row("acquire with local rights, in the node's process: median", within, "ms"))
    etcd = etcd_lock()
    if etcd is not None:
        rows += [
            Row("lock of etcd, one member, by HTTP: median", etcd, "ms"),
            Row("local acquire in the process / lock of etcd", within / etcd, "", 1 / ETCD_TIMES),
            Row("local acquire by HTTP / lock of etcd", local / etcd, ""),
        ]
    return rows


def main() -> None:
    """See the docstring of the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10, help="those of the network that is disturbed")
    parser.add_argument("--without-cut", action="store_true")
    parser.add_argument("--limit", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--asked", type=float, default=3 * SERVED, help="acquires a second that all workers together ask for")
    parser.add_argument("--calm", type=float, default=CALM, help="seconds between two disturbances, at most")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit code 1 if something demanded is missed")
    arguments = parser.parse_args()
    rows = asyncio.run(measured())
    if not arguments.without_cut:
        rows += while_cut() + while_disturbed(arguments.nodes, arguments.limit, arguments.seconds, arguments.asked, arguments.calm)
    show(machine(), rows, as_json=arguments.json)
    if arguments.check and not all(row.met for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
