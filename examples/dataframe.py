"""A table handed over: a million rows, whose columns another process reads where they lie.

Each column is an array of numpy, and a dict of them is a payload like any other. With pandas, the
table is a DataFrame at both ends, without it a dict; what travels is the same.

    python examples/dataframe.py
"""

import multiprocessing
import os
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

import shmbus
from shmbus import Message

Columns = dict[str, npt.NDArray[Any]]

ROWS = 1_000_000
SYMBOLS = np.array(["ANNA", "BERT", "CARL"])


def trades(day: str) -> Columns:
    rows = np.arange(ROWS)
    return {
        "time": np.datetime64(day, "ms") + 86 * rows.astype("m8[ms]"),
        "symbol": SYMBOLS[rows * 7 % 3],
        "price": 100 + np.sin(rows / 1000),
        "volume": rows % 10,
    }


def exchange(bus: str) -> None:
    with shmbus.attach(bus, name="exchange") as endpoint:
        tables = {"2026-11-30": trades("2026-11-30")}

        def hand_over(message: Message[str]) -> Columns:
            return tables[message.payload]

        endpoint.handle("trades.of", hand_over)
        endpoint.handle("stop", lambda message: endpoint.close())
        endpoint.run()


def volumes(columns: Columns) -> dict[str, int]:
    """How much was traded of each symbol."""
    if find_spec("pandas"):
        import pandas

        table = pandas.DataFrame(columns, copy=False)
        return {str(name): int(n) for name, n in table.groupby("symbol")["volume"].sum().items()}
    names, which = np.unique(columns["symbol"], return_inverse=True)
    sums = np.bincount(which, weights=columns["volume"])
    return {str(name): int(n) for name, n in zip(names, sums, strict=True)}


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    with shmbus.serve(f"market-{os.getpid()}") as bus:
        process = spawn.Process(target=exchange, args=(bus.name,))
        process.start()
        with bus.attach("analyst") as analyst:
            analyst.wait_for("trades.of", timeout=30)
            columns: Columns = analyst.request("trades.of", "2026-11-30").payload
            size = sum(column.nbytes for column in columns.values())
            print(f"{len(columns['time']):,} rows of {', '.join(columns)}: {size:,} bytes")
            print("the last trade:", columns["time"][-1])
            for name, volume in volumes(columns).items():
                print(f"{name}: {volume:,}")
            analyst.send("stop")
        process.join()
        columns["price"].mean()  # the columns stay, though who sent them has gone


if __name__ == "__main__":
    main()
