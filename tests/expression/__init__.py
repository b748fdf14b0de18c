"""Constraint expressions."""
