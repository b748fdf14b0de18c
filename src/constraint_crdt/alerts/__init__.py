"""Alerts: the rules, the engine for their evaluation, and the delivery to webhooks."""
