"""A core that misbehaves when it is told to: what is inserted is its command.

Its text grows at the end alone. It is for errors; what a core does is shown with the stand-in.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from xi_bridge.rpc import Peer, RpcError

text = ""


def write(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def show(pristine: bool = False) -> None:
    lines = [{"text": line} for line in text.splitlines(keepends=True)] or [{"text": ""}]
    ops = [{"op": "ins", "n": len(lines), "lines": lines}]
    peer.notify("update", {"view_id": "v", "update": {"ops": ops, "pristine": pristine}})


def insert(chars: str) -> None:
    global text
    match chars:
        case "die" | "die once":
            print("out of paint", file=sys.stderr, flush=True)
            sys.exit(3)
        case "hang":
            time.sleep(600)
        case "slow":
            time.sleep(0.01)
            text += "s"
        case "be killed" if not Path(os.environ["ENOUGH"]).exists():
            os.kill(os.getpid(), signal.SIGKILL)  # as somebody else does
        case "garbage":
            write(b"this is no JSON\n{}\n")
            peer.notify("no type of the bus's", {})
            peer.notify("alert", "no object")
            peer.notify("alert", {"msg": "x" * (8 << 20)})
        case "measure":
            peer.request("measure_width", [{"id": 0, "strings": ["x"]}], measured)
        case "strange":
            peer.notify("scroll_to", {"view_id": ["v"]})
            peer.notify("def_style", {"id": []})
            peer.answer(0, "v")
        case "nonsense":
            peer.notify("update", {"view_id": "v", "update": {"ops": [{"op": "copy", "n": 99}]}})
        case _:
            text += chars
    show()


def measured(result: Any, error: RpcError | None) -> None:
    insert(f"{result if error is None else error.message.split(':')[0]}")


def notified(method: str, params: Any) -> None:
    match method:
        case "edit" if params["method"] == "insert":
            insert(params["params"]["chars"])
        case "save" if text:
            with open(params["file_path"], "w") as file:
                file.write(text)
        case "save":
            peer.notify("alert", {"msg": "the disk is full"})


def requested(number: int, method: str, params: Any) -> None:
    global text
    match method:
        case "new_view":
            if "file_path" in params:
                with open(params["file_path"]) as file:
                    text = file.read()
            peer.answer(number, ["odd"] if text == "odd" else "v")
            show(pristine=True)
        case "get_config":
            peer.answer(number, {"tab_size": 4})
        case "debug_get_contents":
            peer.answer(number, text)
        case _:
            print("what is a cut?", file=sys.stderr, flush=True)
            raise RpcError(-32601, f"no method {method}")


peer = Peer(write, notified, requested)
for line in sys.stdin.buffer:
    peer.receive(line)
