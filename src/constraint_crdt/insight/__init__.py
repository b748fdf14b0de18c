"""Insight: coverage, explanations, convergence, rates and diagnosis, from the evidence of peers.

Evidence is the clocks and hashes in merged messages, and the cells. A node without messages has no evidence, and nothing is assumed
of its state. The modules state their needs of a running node as protocols, and import nothing of `runtime`.
"""
