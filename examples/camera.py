"""A camera: frames of 6 MB, 30 a second, to two consumers.

The recorder must have each frame, the display takes a while for each and wants the newest. The
camera writes them in place, into memory that its endpoint lends it, and both read them there:
nothing is copied. With ``overflow="latest"`` the display has the newest frame whenever it looks
again, and neither the camera nor the recorder waits for it.

    python examples/camera.py
"""

import multiprocessing
import os
import time

import numpy as np
import numpy.typing as npt

import shmbus

Image = npt.NDArray[np.uint8]

SHAPE = (1080, 1920, 3)
FRAMES, RATE = 45, 30


def number_of(frame: Image) -> int:
    return int(frame[0, 0, 0])


def recorder(bus: str) -> None:
    with shmbus.attach(bus, name="recorder") as endpoint:
        endpoint.subscribe("camera.frame")
        numbers: list[int] = []
        for message in endpoint:
            numbers.append(number_of(message.payload))
            if numbers[-1] == FRAMES:
                break
        in_order = numbers == list(range(1, FRAMES + 1))
        endpoint.publish("report.recorder", f"{len(numbers)} frames, {in_order=}")


def display(bus: str) -> None:
    with shmbus.attach(bus, name="display") as endpoint:
        endpoint.subscribe("camera.frame", overflow="latest")
        numbers: list[int] = []
        for message in endpoint:
            numbers.append(number_of(message.payload))
            if numbers[-1] == FRAMES:
                break
            time.sleep(0.2)  # it draws
        how_many = "some" if len(numbers) < FRAMES else "all"
        endpoint.publish("report.display", f"{how_many} of them, the last is number {numbers[-1]}")


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    with shmbus.serve(f"studio-{os.getpid()}") as bus:
        consumers = [spawn.Process(target=each, args=(bus.name,)) for each in (recorder, display)]
        for process in consumers:
            process.start()
        with bus.attach("camera") as camera:
            camera.subscribe("report.*")
            camera.wait_for("camera.frame", receivers=len(consumers), timeout=30)
            due = time.monotonic()
            for number in range(1, FRAMES + 1):
                with camera.loan_array("camera.frame", SHAPE, np.uint8) as loan:
                    loan.array[:] = number  # what the sensor sees
                due += 1 / RATE
                time.sleep(max(0.0, due - time.monotonic()))
            reports = {}
            for message in camera:
                reports[message.source] = message.payload
                if len(reports) == len(consumers):
                    break
        for name in ("recorder", "display"):
            print(f"{name}: {reports[name]}")
        for process in consumers:
            process.join()


if __name__ == "__main__":
    main()
