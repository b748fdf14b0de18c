"""Answers that take more than reading the state: who holds what, why, since when, and whether anybody should be told.

All of it is from evidence: what peers stated in messages that were taken in, and what cells say. Nothing is assumed of a node that
said nothing.
"""
