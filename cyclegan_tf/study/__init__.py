"""How right a run is, what it costs, and the pictures."""
