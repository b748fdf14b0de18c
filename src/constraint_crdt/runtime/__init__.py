"""The running node: timers, exchanges over an engine, probes, evaluation, events."""
