"""What stress/bench.py measures: the stage, the measurements, and the processes they use."""
