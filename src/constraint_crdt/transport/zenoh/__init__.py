"""The engine on Eclipse Zenoh, in-process: no broker and no server to run beside the node.

`transport` is the lifecycle, `session` one opened session and its bridge to asyncio, `settings` what Zenoh is told,
`keys` the names on the wire, `paging` how a long list of replies travels, `offload` blocking calls off the loop.
Nothing imports this package, and with it the zenoh module, before a node asks for it.
"""

from constraint_crdt.transport.zenoh.transport import ZenohTransport

__all__ = ["ZenohTransport"]
