"""The simulator: many real `GossipNode`s in virtual time, with every fault, decided by one seed."""
