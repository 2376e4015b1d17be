"""Ends before it has attached."""


def main() -> None:
    raise RuntimeError("half of me was never written")
