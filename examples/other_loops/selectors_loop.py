"""One loop of `selectors` waits for sockets and for the bus.

A gateway: each line that a TCP client sends goes to the bus, and what others publish there goes to
all clients. One thread does it all, and sleeps while there is nothing to do.

    python examples/other_loops/selectors_loop.py
"""

import contextlib
import multiprocessing
import os
import selectors
import socket
import threading

import shmbus
from shmbus import Endpoint, Message
from shmbus.errors import BusDown

LINES = 3


def shouter(bus: str) -> None:
    """Another process: publishes each line again, in capitals."""
    with shmbus.attach(bus, name="shouter") as endpoint, contextlib.suppress(BusDown):

        @endpoint.handle("line.in")
        def shout(message: Message) -> None:
            endpoint.publish("line.out", message.payload.upper())

        endpoint.run()


def client(address: tuple[str, int]) -> None:
    """Stands for a user's telnet."""
    with socket.create_connection(address) as connection, connection.makefile("rw") as lines:
        for number in range(LINES):
            lines.write(f"hello {number}\n")
            lines.flush()
            print("client reads:", lines.readline().strip())


def serve(listener: socket.socket, gateway: Endpoint) -> None:
    clients: set[socket.socket] = set()
    served = False
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(gateway, selectors.EVENT_READ)
        while clients or not served:
            for key, _ in selector.select():
                if key.fileobj is gateway:
                    while (message := gateway.receive(0)) is not None:
                        for each in clients:
                            each.sendall(f"{message.payload}\n".encode())
                elif key.fileobj is listener:
                    connection, _ = listener.accept()
                    selector.register(connection, selectors.EVENT_READ)
                    clients.add(connection)
                    served = True
                elif isinstance(key.fileobj, socket.socket):
                    if line := key.fileobj.recv(1000):
                        gateway.send("line.in", line.decode().strip())
                    else:
                        selector.unregister(key.fileobj)
                        clients.remove(key.fileobj)
                        key.fileobj.close()
        selector.unregister(gateway)


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    with (
        shmbus.serve(f"gateway-{os.getpid()}") as bus,
        bus.attach("gateway") as gateway,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        process = spawn.Process(target=shouter, args=(bus.name,))
        process.start()
        gateway.subscribe("line.out")
        gateway.wait_for("line.in", timeout=30)
        user = threading.Thread(target=client, args=(listener.getsockname(),))
        user.start()
        serve(listener, gateway)
        user.join()
    process.join()


if __name__ == "__main__":
    main()
