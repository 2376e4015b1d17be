"""Links: buses joined across machines."""
