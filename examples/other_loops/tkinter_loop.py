"""A window of tkinter shows what comes by the bus: Tk's own loop waits for it, without a timer or a
thread.

python examples/other_loops/tkinter_loop.py
"""

import contextlib
import multiprocessing
import os
import tkinter

import shmbus
from shmbus import Endpoint, Message
from shmbus.errors import BusDown

LAST = 3


def counter(bus: str) -> None:
    """Another process: counts on whenever it is told to."""
    with shmbus.attach(bus, name="counter") as endpoint, contextlib.suppress(BusDown):

        @endpoint.handle("count.on")
        def count_on(message: Message) -> None:
            endpoint.publish("count.is", message.payload + 1)

        endpoint.run()


def show(endpoint: Endpoint) -> None:
    root = tkinter.Tk()
    label = tkinter.Label(root, text="0")
    label.pack()

    def take(_endpoint: object, _mask: int) -> None:
        while (message := endpoint.receive(0)) is not None:
            label["text"] = str(message.payload)
            print("the window shows", label["text"])
            if message.payload == LAST:
                root.quit()
            else:
                endpoint.send("count.on", message.payload)

    root.tk.createfilehandler(endpoint, tkinter.READABLE, take)
    endpoint.send("count.on", 0)
    root.mainloop()
    root.tk.deletefilehandler(endpoint)
    root.destroy()


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    with shmbus.serve(f"window-{os.getpid()}") as bus, bus.attach("window") as window:
        process = spawn.Process(target=counter, args=(bus.name,))
        process.start()
        window.subscribe("count.is")
        window.wait_for("count.on", timeout=30)
        show(window)
    process.join()


if __name__ == "__main__":
    main()
