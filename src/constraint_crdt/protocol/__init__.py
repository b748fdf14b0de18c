"""The exchange between replicas: messages and their codec, peer clocks, transfers, repair, and `GossipNode`."""
