"""What carries frames from one process to others: each file opens both ends of one carrier, with
what a fair-minded user of it would choose. None keeps more than ``DEPTH`` frames under way, but the
bus, which has as many as the pool takes."""

DEPTH = 8
