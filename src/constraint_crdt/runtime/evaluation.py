"""Evaluation: constraints judged when something is measured, and the results counted, timed and told.

Judgements are frequent, so counts gather in memory and are written in a cell per constraint and interval, at most. A killed node
loses the counts of an interval. Counts wait while writes are refused.

Rules kept here:

- A sample is judged when it comes in, before `measure` returns. A look at each tick moves what depends on time alone.
- A tick that comes late by more than `SUSPENDED` means that the node was not running: nothing is known of the time between.
- The state of a constraint is told in a cell when it turns. The first turn is told at once; a constraint that turns often is told
  every `TOLD_EVERY` at most, always with its last state.
"""


from constraint_crdt.crdt.clock import SECOND

JUDGED_AT_ONCE = 500
"""Constraints judged in a turn of the loop. They take some milliseconds."""

RENEWED_AT_ONCE = 20
"""New or redefined constraints read in a turn of the loop. Compiling an expression takes up to a millisecond."""

SUSPENDED = 5 * SECOND
"""The delay of a tick above which the node counts as suspended, in ns."""
