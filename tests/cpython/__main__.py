"""The command; workers that take this for their main module import nothing by it."""

if __name__ == "__main__":
    import sys

    from tests.cpython.command import main

    sys.exit(main())
