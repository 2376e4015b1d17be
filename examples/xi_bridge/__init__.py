"""A host that puts an XI-editor core on a bus, with front-ends and extensions beside it."""
