"""Request and reply: a server in one process, a client in another.

The server handles two types of request. What a handler returns is the reply; what it raises reaches
the caller as `RemoteError`. Where no endpoint handles a type, the caller gets `NoRoute` at once.

    python examples/request_reply.py
"""

import contextlib
import multiprocessing
import os

import msgspec

import shmbus
from shmbus import Message
from shmbus.errors import BusDown, NoRoute, RemoteError


class Division(msgspec.Struct):
    dividend: float
    divisor: float


def server(bus: str) -> None:
    with shmbus.attach(bus, name="calculator") as endpoint, contextlib.suppress(BusDown):

        @endpoint.handle("calculator.sum")
        def add(message: Message[list[float]]) -> float:
            return sum(message.payload)

        @endpoint.handle("calculator.divide")
        def divide(message: Message[Division]) -> float:
            return message.payload.dividend / message.payload.divisor

        endpoint.run()  # until the bus is ended, which raises BusDown


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    with shmbus.serve(f"calculator-{os.getpid()}") as bus:
        process = spawn.Process(target=server, args=(bus.name,))
        process.start()
        with bus.attach("client") as client:
            client.wait_for("calculator.>", timeout=30)

            reply = client.request("calculator.sum", [1, 2, 3.5])
            print(f"the sum is {reply.payload}, from {reply.source}")

            reply = client.request("calculator.divide", Division(dividend=22, divisor=7))
            print(f"22 / 7 is {reply.payload:.4f}")

            futures = [client.request_async("calculator.sum", [n, n]) for n in range(5)]
            print("all at once:", [future.result().payload for future in futures])

            try:
                client.request("calculator.divide", Division(dividend=1, divisor=0))
            except RemoteError as error:
                print(f"it raised {error.error}: {error.message}")

            try:
                client.request("calculator.root", 2)
            except NoRoute as error:
                print(f"no endpoint handles {error.type}")
    process.join()


if __name__ == "__main__":
    main()
