"""CPython's own tests of its executor and its queues, run with ours in their place.

They are in the interpreter's package `test`, of the version that this is for: 3.13.

    python -m tests.cpython                 # from the root of a checkout
    python -m tests.cpython -k shutdown     # those whose name has that in it
    python -m tests.cpython --original      # with the originals: that proves these tests here
    python -m tests.cpython --excepted      # what is not run otherwise, to see what it says
"""
