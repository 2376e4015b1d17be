"""What both sides of a bus agree on."""
