"""Fleets on networks that are slow, lossy and half broken: hosts in network namespaces, joined by a switch of their own.

`switch.py` is the switch, `hosts.py` the hosts and the nodes on them. Each test says what is wrong with its network, and what holds
then.
"""
