"""A worker's end of a bus."""
