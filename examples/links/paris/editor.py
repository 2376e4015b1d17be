"""Asks, and does not know where who answers is."""

import shmbus

with shmbus.attach(name="editor") as endpoint:
    print(endpoint.request("index.query", "tea", timeout=10).payload)
