"""What stress/bench.py measures: the stage, the measurements, and everyone who plays on it."""
