"""Services: the methods of a class, served on a bus and called through it with the same types.

`methods` finds the methods of a class and their types; `serving` makes handlers of those of an
instance, `calling` an object whose methods make requests. How a request is made, and how a handler
is added, is left to the endpoint: a synchronous one and one of asyncio differ in nothing else.
"""
