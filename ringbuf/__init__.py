"""Single-producer single-consumer rings in shared memory, with doorbells; usable on its own."""
