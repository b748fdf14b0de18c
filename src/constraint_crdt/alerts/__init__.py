"""Alerts: the rules, what each kind of rule reads, the engine that follows them, and the delivery of messages."""
