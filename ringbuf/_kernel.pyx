"""The kernel's rings and bells, as Python sees them."""
