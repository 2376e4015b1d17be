"""The pages, a file each; the one of the bus opens all others."""
