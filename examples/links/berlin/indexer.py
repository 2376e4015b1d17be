"""Answers, and does not know where who asks is."""

import shmbus

with shmbus.attach(name="indexer") as endpoint:
    endpoint.handle("index.query", lambda message: f"{message.payload}, found in berlin")
    print("ready")
    endpoint.run()
