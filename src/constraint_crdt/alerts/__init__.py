"""Alerts: the kinds and rules, the engine that evaluates them, and the delivery to webhooks."""
