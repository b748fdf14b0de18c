"""Properties of the state, checked over random histories."""
