"""The exchange between replicas: messages, peer clocks, transfers, repair, and `GossipNode`. See `gossip_node` for the parts."""
