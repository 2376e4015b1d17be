"""Real faults, and how long it takes until others know of them; `stress/deaths.py` runs them."""
