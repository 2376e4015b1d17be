# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False
"""A worker's end of the bus, natively: messages, and what is done for each of them.

One module, because what the C headers keep for a process (its watcher thread, the mark by which a fork is seen) must
exist once; an idea in each file that it includes. `EndpointCore` makes the parts of an endpoint, and each part holds
those that it needs:

    Connection  <-  Pool  <-  Outbox  <-  Answers, Requests, Outflows
    Connection  <-  Threads <-  Answers, Requests, Outflows, Inbox, Receiving
    CallbackTable  <-  Inbox  <-  Receiving

What it needs from the Python half it is given as `upcalls.Upcalls`.
"""

import contextvars
import logging
import math
import os
import threading
import traceback
import types
import uuid
from collections import deque
from collections.abc import Generator
from concurrent.futures import CancelledError
from typing import Literal

import msgspec
import numpy

from ringbuf.segment import ADVICE
from shmbus.endpoint import payloads
from shmbus.endpoint.retry import ask as ask_again
from shmbus.endpoint.trouble import inside_run
from shmbus.endpoint.upcalls import BadRing, Fault, Full, Unanswered
from shmbus.errors import (
    AlreadyReplied,
    BusDown,
    BusError,
    CannotNack,
    DecodeError,
    EncodeError,
    EndpointClosed,
    Evicted,
    ForkedEndpoint,
    InvalidPayloadType,
    InvalidSetting,
    MessageTooLarge,
    NoRoute,
    NoThread,
    NotARequest,
    NotSupported,
    PayloadReleased,
    QueueFull,
    RequestsFull,
    RequestTimeout,
    SegmentError,
)
from shmbus.settings import BatchLimits, check_flag
from shmbus.shared import frames
from shmbus.shared.dtypes import NotCarried
from shmbus.shared.failures import Passed, encode_failure, remote_error
from shmbus.shared.layout import FaultCode, Kind, Outcome, words
from shmbus.shared.messages import Tap
from shmbus.shared.patterns import check_pattern, check_type

cimport cython
from cpython.buffer cimport (PyBUF_ANY_CONTIGUOUS, PyBuffer_FillInfo, PyBuffer_IsContiguous, PyBuffer_Release,
                             PyObject_GetBuffer)
from cpython.contextvars cimport PyContextVar_Get, PyContextVar_Reset, PyContextVar_Set
from cpython.exc cimport PyErr_CheckSignals
from cpython.float cimport PyFloat_CheckExact
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyTypeObject, newfunc
from cpython.ref cimport PyObject
from libc.errno cimport EINVAL, EMFILE, ENFILE, ENOENT, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

__all__ = [
    "Addressee",
    "Batch",
    "Callbacks",
    "Connection",
    "Deadline",
    "Encoded",
    "EndpointCore",
    "EventCallback",
    "Found",
    "Gate",
    "Iteration",
    "Job",
    "Loan",
    "LoopIteration",
    "LoopReply",
    "LoopStream",
    "Looped",
    "Message",
    "Origin",
    "PatternTable",
    "PendingReply",
    "Requests",
    "Stream",
    "after_fork",
    "append_interest",
    "deadline_in_context",
    "deadline_of",
    "dispatcher_from",
    "entry_in",
    "entry_of",
    "events_in",
    "in_force",
    "prepare_up",
    "until",
    "up_size",
    "ways",
]

cdef object log = logging.getLogger("shmbus")

include "kernel/segments.pxi"
include "kernel/peers.pxi"
include "kernel/share.pxi"
include "kernel/origin.pxi"
include "kernel/decoding.pxi"
include "kernel/connection.pxi"
include "kernel/pool.pxi"
include "kernel/sending.pxi"
include "kernel/lending.pxi"
include "kernel/message.pxi"
include "kernel/deadlines.pxi"
include "kernel/threads.pxi"
include "kernel/patterns.pxi"
include "kernel/callbacks.pxi"
include "kernel/inbox.pxi"
include "kernel/answers.pxi"
include "kernel/nacks.pxi"
include "kernel/outflows.pxi"
include "kernel/receiving.pxi"
include "kernel/queries.pxi"
include "kernel/requests.pxi"
include "kernel/streams.pxi"
include "kernel/batch.pxi"
include "kernel/endpoint.pxi"
include "kernel/looped.pxi"
include "kernel/giving.pxi"
include "kernel/loop_streams.pxi"
include "kernel/makers.pxi"
