"""The transport on Eclipse Zenoh, in the process of the node: no broker runs beside it.

`transport` has the life cycle, `session` one open session and its bridge to asyncio, `startup` configuration, opening and closing.
The zenoh package is imported only when a node asks for this transport.
"""

from constraint_crdt.transport.zenoh.transport import ZenohTransport

__all__ = ["ZenohTransport"]
