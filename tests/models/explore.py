"""Explores every interleaving of a few small programs over shared words.

A model is a set of words and of programs.  A program is an ordinary generator function that
yields one `Step` for each access to a shared word and is sent the answer:

    def poster() -> Program:
        posted = 0
        for run in (1, 2):
            yield store_seq("head", run)
            epoch = yield load("epoch")
            if epoch % 2 and epoch != posted:
                yield sem_post("bell")
                posted = epoch

so that it reads like the code that it models, and may be cut off (killed, frozen) at each yield.

How it works.  What a program will do depends only on where it stands and on its local variables;
this pair is a *place*.  Places are numbered as they are found, and the transition (place, answer)
-> place is computed once, by running the generator again along the answers that first led there,
and remembered.  A state of the model is then the words, one place for each program, the store
buffers and the faults still to come, each numbered as it is found; `explore` searches them breadth
first, so the trace of a counterexample is a shortest one.

What is left out.  A step that no other program can see or prevent is taken at once, alone; faults
befall before it as well as after it.  Such are a store into the program's own store buffer, a
`load` of a word that nobody else writes (`Model.writers`), a store to a word that nobody else
reads (`Model.private`), and the arrival of such a store in memory.  Each commutes with every step
that another program can take meanwhile, so whatever follows if those come first follows as well if
they come later: every end, every assertion that fails and all words that others can see are
reached all the same.  A program that does otherwise than it is declared is a TypeError.

What this asks of a program: its local variables are hashable, a statement holds at most one
`yield`, and what a `for` runs over is distinct and does not change in the loop.  (Three ways to
each place are tried, whether the same follows.)  A variable that is not needed any more still
tells two places apart, so leave sub-programs (`yield from`) early.

Memory is as on x86-TSO: `store` goes into the program's own store buffer, which is emptied in
order at any later time, `load` sees the program's own buffer first; `store_seq`, `fence` and every
locked operation wait until the buffer is empty.  A model whose stores need no buffers
(`buffered=False`) is explored sequentially consistent.

Wrong is: an `assert` that fails in a program; an `invariant` that does not hold; a state in which
no program can go on and which `at_rest` does not accept; and a state from which no such end can
be reached any more (a livelock).  Faults (a kill, a freeze, an interrupted wait) may come, but no
end may depend on them.
"""

from __future__ import annotations

import gc
from array import array
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

Value = TypeVar("Value")
State = tuple[int, ...]


class Step(NamedTuple):
    """One access to shared words: indivisible, and a point at which to be killed."""

    kind: str
    word: str = ""
    value: Any = None

    def __str__(self) -> str:
        if self.kind in ("atomic", "choose"):
            return self.word
        return f"{self.kind} {self.word}" + ("" if self.value is None else f" = {self.value}")


Program = Generator[Step, Any, None]
Part = Generator[Step, Any, Value]  # a sub-program with a result, for `yield from`


def load(word: str) -> Step:
    return Step("load", word)


def store(word: str, value: Hashable) -> Step:
    """A release (or relaxed) store: on x86 both enter the store buffer."""
    return Step("store", word, value)


def store_seq(word: str, value: Hashable) -> Step:
    """A sequentially consistent store."""
    return Step("store_seq", word, value)


def fence() -> Step:
    return Step("fence")


def exchange(word: str, value: Hashable) -> Step:
    """Stores, and answers the value before."""
    return Step("exchange", word, value)


def sem_post(word: str) -> Step:
    return Step("sem_post", word)


def sem_trywait(word: str) -> Step:
    """Answers whether there was a token to take."""
    return Step("sem_trywait", word)


def sem_wait(word: str) -> Step:
    """Blocks until there is a token; answers False where a signal interrupted it."""
    return Step("sem_wait", word)


def until(word: str, least: int) -> Step:
    """Blocks until the word is at least `least`; answers the word."""
    return Step("until", word, least)


def until_dead(process: str) -> Step:
    """Blocks until `process` is killed and none of its stores is still to come."""
    return Step("until_dead", process)


def choose(what: str, options: tuple[Hashable, ...]) -> Step:
    """Answers each of the options, in a branch of its own."""
    return Step("choose", what, options)


def atomic(what: str, effect: Callable[[dict[str, Any]], Any]) -> Step:
    """Several words at once, where a finer grain is another model's subject.

    `effect` changes the words in place and answers; None means that it must wait. It is given as
    one and the same function object whenever the program is at this place.
    """
    return Step("atomic", what, effect)


@dataclass(frozen=True)
class Model:
    """Words and programs, what may befall them, and what must hold."""

    words: Mapping[str, Hashable]
    programs: Mapping[str, Callable[[], Program]]
    at_rest: Callable[[View], str | None]
    """Says what is wrong with a state in which no program can go on; None: nothing."""
    invariant: Callable[[View], str | None] | None = None
    buffered: bool = True
    kills: int = 0
    mortal: tuple[str, ...] = ()
    heirs: Mapping[str, Callable[[], Program]] = field(default_factory=dict)
    """What runs in the place of a killed program, itself as mortal."""
    writers: Mapping[str, str] = field(default_factory=dict)
    """Of words with one writer only: which program, its heir included; "": none."""
    private: frozenset[str] = frozenset()
    """Of those, the words that only their writer reads; `at_rest` may, too."""
    freezes: int = 0
    freezable: tuple[str, ...] = ()
    interrupts: int = 0
    """How many `sem_wait`s may return without a token."""


class Exploration(NamedTuple):
    states: int
    steps: int
    wrong: str | None
    trace: tuple[str, ...]

    def __str__(self) -> str:
        counted = f"{self.states:,} states, {self.steps:,} steps"
        if self.wrong is None:
            return f"{counted}: nothing wrong"
        return "\n  ".join((f"{counted}: {self.wrong}", *self.trace))


ENDED, KILLED = 0, 1
NO_STEP, SEEN, UNSEEN, UNSEEN_WITHOUT_STORES = range(4)  # of its own still in the buffer
WAYS = 3  # to each place, of which it is proved that they do not matter
Frames = tuple[tuple[int, tuple[tuple[str, Any], ...]], ...]


class Places:
    """The places of one program, numbered as they are found."""

    def __init__(
        self, name: str, starts: list[Callable[[], Program]], manner: Callable[[Step], int]
    ) -> None:
        self.name = name
        self.starts = starts
        self.steps: list[Step | None] = [None, None]
        self.manners = [NO_STEP, NO_STEP]  # in which the step is taken
        self._manner = manner
        self.frames: list[Frames] = [(), ()]
        self.failed: dict[int, str] = {}
        self._after: list[dict[Any, int]] = [{}, {}]
        self._ways: list[list[tuple[int, Any]]] = [[], []]  # place and answer before
        self._numbers: dict[Hashable, int] = {}
        self._unproved: list[tuple[int, tuple[int, Any], Any]] = []

    def start(self, which: int) -> int:
        program = self.starts[which]()
        return self._arrive(program, None, (~which, None))

    def after(self, place: int, answer: Any) -> int:
        known = self._after[place].get(answer)
        if known is None:
            known = self._arrive(self._replay(self._ways[place][0]), answer, (place, answer))
            self._after[place][answer] = known
            self._unproved.extend((place, way, answer) for way in self._ways[place][1:])
            self._prove()
        return known

    def _prove(self) -> None:
        """However a place is reached, the same must follow: or else there is something hidden."""
        while self._unproved:
            place, way, answer = self._unproved.pop()
            if (
                self._arrive(self._replay(way), answer, (place, answer))
                != self._after[place][answer]
            ):
                raise TypeError(f"{self.name}: something hidden decides after {self.steps[place]}")

    def local(self, place: int, name: str) -> Any:
        for _, variables in reversed(self.frames[place]):
            for variable, value in variables:
                if variable == name:
                    return value
        raise KeyError(name)

    def _replay(self, way: tuple[int, Any]) -> Program:
        answers = []
        place, answer = way
        while place >= 0:
            answers.append(answer)
            place, answer = self._ways[place][0]
        program = self.starts[~place]()
        program.send(None)
        for answer in reversed(answers):
            program.send(answer)
        return program

    def _arrive(self, program: Program, answer: Any, way: tuple[int, Any]) -> int:
        try:
            step = program.send(answer)
        except StopIteration:
            return ENDED
        except AssertionError as error:
            key: Hashable = f"{self.name}: {error}"
            number = self._numbers.setdefault(key, len(self.steps))
            if number == len(self.steps):
                self._add(None, (), way)
                self.failed[number] = str(key)
            return number
        frames = []
        codes = []
        running: Any = program
        while running is not None:
            frame = running.gi_frame
            free = frame.f_code.co_freevars  # the model's parameters, not the program's variables
            variables = tuple(pair for pair in frame.f_locals.items() if pair[0] not in free)
            frames.append((frame.f_lasti, variables))
            codes.append(frame.f_code)
            running = running.gi_yieldfrom
        key = (*codes, *frames)
        number = self._numbers.setdefault(key, len(self.steps))
        if number == len(self.steps):
            self._add(step, tuple(frames), way)
            return number
        if self.steps[number] != step:
            raise TypeError(f"{self.name}: something hidden decides before {step}")
        if way not in self._ways[number] and len(self._ways[number]) < WAYS:
            self._ways[number].append(way)
            self._unproved.extend((number, way, answer) for answer in self._after[number])
        return number

    def _add(self, step: Step | None, frames: Frames, way: tuple[int, Any]) -> None:
        self.steps.append(step)
        self.manners.append(self._manner(step) if step else NO_STEP)
        self.frames.append(frames)
        self._after.append({})
        self._ways.append([way])


class View:
    """One state, to be judged by name."""

    def __init__(self, search: Search, state: State, *hidden: str) -> None:
        self._search = search
        self._memory, self._state = search.memories[state[0]], state
        self._hidden = hidden
        self.more_than_words = False  # was looked at

    def __getitem__(self, word: str) -> Any:
        if word in self._hidden:
            raise TypeError(f"{word} is private")
        return self._search.values[self._memory[self._search.index[word]]]

    def status(self, process: str) -> str:
        """One of "ended", "killed", "frozen" and "waiting"."""
        self.more_than_words = True
        place = self._state[1 + self._search.process[process]]
        if place < 0:
            return "frozen"
        return {ENDED: "ended", KILLED: "killed"}.get(place, "waiting")

    def local(self, process: str, name: str) -> Any:
        """A local variable of a program that has not ended."""
        self.more_than_words = True
        number = self._search.process[process]
        place = self._state[1 + number]
        return self._search.places[number].local(~place if place < 0 else place, name)


class Move(NamedTuple):
    """What a step of a program, or its store buffer, makes of memory, its place and its buffer."""

    who: int
    memory: int
    place: int
    buffer: int
    what: Step
    answer: Any


class Search:
    """The state space of one model.

    All in it is numbered as it is found, values, memories and store buffers as well as places, so
    that a state is a flat tuple of numbers: (memory, a place for each program, a buffer for each,
    faults still to come).  What a program can do depends on memory, its place and its buffer only
    (`until_dead` apart), and is found out once for each such three.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.names = list(model.programs)
        self.process = {name: number for number, name in enumerate(self.names)}
        self.words = list(model.words)
        self.index = {word: number for number, word in enumerate(self.words)}
        self.places = [
            Places(
                name,
                [model.programs[name], *([model.heirs[name]] if name in model.heirs else [])],
                partial(self._manner, name),
            )
            for name in self.names
        ]
        self.values: list[Any] = []
        self._value_numbers: dict[Any, int] = {}
        self.memories: list[tuple[int, ...]] = []
        self._memory_numbers: dict[tuple[int, ...], int] = {}
        self._buffers: list[tuple[tuple[int, int], ...]] = [()]  # word and number of the value
        self._buffer_numbers: dict[tuple[tuple[int, int], ...], int] = {(): 0}
        self._faults: list[tuple[int, int, int]] = [(0, 0, 0)]
        self._manners = [places.manners for places in self.places]
        self._failed = [places.failed for places in self.places]
        self._moves: list[dict[tuple[int, int, int], tuple[Move, ...]]] = [{} for _ in self.names]
        self._drained: dict[tuple[int, int, int, int], Move] = {}
        self._heirs: dict[int, int] = {}
        self._judged: dict[int, str | None] = {}
        theirs = {name: self._of_others(name) for name in self.names}
        self._accessible = [
            [at for at, word in enumerate(self.words) if word not in theirs[name]]
            for name in self.names
        ]
        self._private = {self.index[word] for word in model.private}

    def first(self) -> State:
        return (
            self._memory(tuple(map(self._value, self.model.words.values()))),
            *(places.start(0) for places in self.places),
            *(0 for _ in self.names),
            self._fault((self.model.kills, self.model.freezes, self.model.interrupts)),
        )

    def _value(self, value: Any) -> int:
        number = self._value_numbers.setdefault(value, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number

    def _memory(self, memory: tuple[int, ...]) -> int:
        number = self._memory_numbers.setdefault(memory, len(self.memories))
        if number == len(self.memories):
            self.memories.append(memory)
        return number

    def _buffer(self, buffer: tuple[tuple[int, int], ...]) -> int:
        number = self._buffer_numbers.setdefault(buffer, len(self._buffers))
        if number == len(self._buffers):
            self._buffers.append(buffer)
        return number

    def _fault(self, faults: tuple[int, int, int]) -> int:
        if faults not in self._faults:
            self._faults.append(faults)
        return self._faults.index(faults)

    def _of_others(self, name: str) -> set[str]:
        """The words that this program must not touch."""
        return {word for word in self.model.private if self.model.writers[word] != name}

    def _manner(self, name: str, step: Step) -> int:
        """Whether any other program can see that this step is taken, or prevent it."""
        if step.kind == "choose":
            return UNSEEN
        if step.kind == "fence":
            return UNSEEN_WITHOUT_STORES
        if step.word in self._of_others(name):
            raise TypeError(f"{name}: {step.word} is private")
        if step.kind == "load":
            return UNSEEN if self.model.writers.get(step.word) in (name, "") else SEEN
        if step.kind in ("store", "store_seq", "exchange", "sem_post", "sem_trywait", "sem_wait"):
            self._check_writer(name, step.word)
        if step.kind == "store" and (self.model.buffered or step.word in self.model.private):
            return UNSEEN
        if step.kind == "store_seq" and step.word in self.model.private:
            return UNSEEN_WITHOUT_STORES
        return SEEN

    def _check_writer(self, name: str, word: str) -> None:
        if self.model.writers.get(word, name) != name:
            raise TypeError(f"{name} writes {word}, whose writer is {self.model.writers[word]!r}")

    def onward(self, state: State) -> list[tuple[State, Move]]:
        """The states that the programs and the store buffers make of this one.

        What no other program can see or prevent is taken at once, alone: taken later it would lead
        to the same.
        """
        first = 1 + len(self.names)  # of the buffers
        moves: Sequence[Move]
        running = []
        for who, manners in enumerate(self._manners):
            place = state[1 + who]
            if place > KILLED:
                manner = manners[place]
                if manner == UNSEEN or (manner == UNSEEN_WITHOUT_STORES and not state[first + who]):
                    moves = self._moves_of(state, who)
                    break
                if manner:
                    running.append(who)
        else:
            moves = self._moves_of_many(state, running)
        found = []
        for move in moves:
            after = list(state)
            who, after[0], place, buffer, _, _ = move
            after[1 + who] = place
            after[first + who] = buffer
            found.append((tuple(after), move))
        return found

    def _moves_of_many(self, state: State, running: list[int]) -> Sequence[Move]:
        found: list[Move] = []
        if self.model.buffered:
            for who, buffer in enumerate(state[1 + len(self.names) : -1]):
                if buffer:
                    move = self._drain(state, who)
                    if self._buffers[buffer][0][0] in self._private:
                        return [move]
                    found.append(move)
        for who in running:
            found += self._moves_of(state, who)
        return found

    def _drain(self, state: State, who: int) -> Move:
        """The oldest store in this program's buffer reaches memory."""
        key = state[0], state[1 + who], state[1 + len(self.names) + who], who
        if key not in self._drained:
            (at, value), *others = self._buffers[key[2]]
            memory = self._with(self.memories[key[0]], at, value)
            what = Step("has in memory", self.words[at], self.values[value])
            self._drained[key] = Move(who, memory, key[1], self._buffer(tuple(others)), what, None)
        return self._drained[key]

    def _moves_of(self, state: State, who: int) -> tuple[Move, ...]:
        key = state[0], state[1 + who], state[1 + len(self.names) + who]
        found = self._moves[who].get(key)
        if found is None:
            step = self.places[who].steps[key[1]]
            assert step is not None
            found = tuple(self._found_out(state, who, step, *key))
            if step.kind != "until_dead":
                self._moves[who][key] = found
        return found

    def _found_out(
        self, state: State, who: int, step: Step, memory: int, place: int, buffer: int
    ) -> Iterator[Move]:
        after = self.places[who].after
        if step.kind == "store" and self.model.buffered:
            stored = (self.index[step.word], self._value(step.value))
            filled = self._buffer((*self._buffers[buffer], stored))
            yield Move(who, memory, after(place, None), filled, step, None)
            return
        for answer, changed in self.outcomes(who, step, memory, self._buffers[buffer], state):
            yield Move(who, changed, after(place, answer), buffer, step, answer)

    def _with(self, memory: tuple[int, ...], at: int, value: int) -> int:
        return self._memory((*memory[:at], value, *memory[at + 1 :]))

    def outcomes(
        self, who: int, step: Step, number: int, buffer: tuple[tuple[int, int], ...], state: State
    ) -> Iterator[tuple[Any, int]]:
        """Each answer that the step may have now, with the memory after it; none: it must wait."""
        kind, word, value = step
        if kind == "choose":
            for option in value:
                yield option, number
            return
        if kind == "until_dead":
            other = self.process[word]
            if state[1 + other] == KILLED and not state[1 + len(self.names) + other]:
                yield None, number
            return
        memory = self.memories[number]
        if kind == "atomic":
            if not buffer:
                yield from self._atomically(who, value, number)
            return
        at = self.index[word] if word else 0
        present = self.values[memory[at]]
        if kind == "load":
            for buffered, latest in buffer:
                if buffered == at:
                    present = self.values[latest]
            yield present, number
        elif buffer:
            pass  # a locked operation waits until the store buffer is empty
        elif kind in ("store", "store_seq"):
            yield None, self._with(memory, at, self._value(value))
        elif kind == "fence":
            yield None, number
        elif kind == "exchange":
            yield present, self._with(memory, at, self._value(value))
        elif kind == "sem_post":
            yield None, self._with(memory, at, self._value(present + 1))
        elif kind in ("sem_trywait", "sem_wait"):
            if present:
                yield True, self._with(memory, at, self._value(present - 1))
            elif kind == "sem_trywait":
                yield False, number
        elif kind == "until":
            if present >= value:
                yield present, number
        else:
            raise TypeError(f"no such step: {step}")

    def _atomically(
        self, who: int, effect: Callable[[dict[str, Any]], Any], number: int
    ) -> Iterator[tuple[Any, int]]:
        memory = self.memories[number]
        before = {self.words[at]: self.values[memory[at]] for at in self._accessible[who]}
        words = dict(before)
        answer = effect(words)
        if answer is None:
            return
        changed = list(memory)
        for word, value in words.items():
            if value is not before[word]:
                changed[self.index[word]] = self._value(value)
                self._check_writer(self.names[who], word)
        yield answer, self._memory(tuple(changed))

    def befalling(self, state: State) -> list[tuple[State, str]]:
        """The states that faults can make of this one."""
        kills, freezes, interrupts = self._faults[state[-1]]
        found = []
        if kills:
            fewer = self._fault((kills - 1, freezes, interrupts))
            for name in self.model.mortal:
                who = self.process[name]
                if state[1 + who] > KILLED:
                    after = self._befallen(state, who, self._heir(who), fewer)
                    found.append((after, f"{name} is killed"))
        if freezes:
            fewer = self._fault((kills, freezes - 1, interrupts))
            for name in self.model.freezable:
                who = self.process[name]
                if state[1 + who] > KILLED:
                    after = self._befallen(state, who, ~state[1 + who], fewer)
                    found.append((after, f"{name} is frozen"))
        if interrupts:
            fewer = self._fault((kills, freezes, interrupts - 1))
            for who, name in enumerate(self.names):
                place = state[1 + who]
                step = self.places[who].steps[place] if place > KILLED else None
                waits = step is not None and step.kind == "sem_wait"
                if waits and not state[1 + len(self.names) + who]:
                    after = self._befallen(state, who, self.places[who].after(place, False), fewer)
                    found.append((after, f"{name} is interrupted"))
        return found

    def _befallen(self, state: State, who: int, place: int, faults: int) -> State:
        return (*state[: 1 + who], place, *state[2 + who : -1], faults)

    def _heir(self, who: int) -> int:
        """Where the program stands that runs in the place of a killed one."""
        if self.names[who] not in self.model.heirs:
            return KILLED
        if who not in self._heirs:
            self._heirs[who] = self.places[who].start(1)
        return self._heirs[who]

    def failed(self, state: State) -> str | None:
        for who, failed in enumerate(self._failed):
            if failed and state[1 + who] in failed:
                return failed[state[1 + who]]
        if not self.model.invariant or state[0] in self._judged:
            return self._judged.get(state[0])
        view = View(self, state, *self.model.private)
        wrong = self.model.invariant(view)
        if not view.more_than_words:
            self._judged[state[0]] = wrong
        return wrong

    def describe(self, state: State, after: State) -> str:
        """How the one state became the other."""
        for reached, move in self.onward(state):
            if reached == after:
                answered = "" if move.answer is None else f" -> {move.answer}"
                return f"{self.names[move.who]}: {move.what}{answered}"
        return next(fault for reached, fault in self.befalling(state) if reached == after)


def explore(model: Model, limit: int = 2_000_000) -> Exploration:
    """Searches all states of the model, up to the first that is wrong.

    Raises RuntimeError where there are more than `limit` states.
    """
    collecting = gc.isenabled()
    gc.disable()  # millions of tuples without a cycle among them
    try:
        return _explore(model, limit)
    finally:
        if collecting:
            gc.enable()


def _explore(model: Model, limit: int) -> Exploration:
    search = Search(model)
    order = [search.first()]
    numbers = {order[0]: 0}
    came = array("I", [0])  # from which state each was reached first
    onward = array("I")  # the states after state 0, after state 1, ..., faults apart
    start = array("I", [0])  # and where those of each begin
    ending = bytearray()  # whether an end can be reached
    faults = 0

    def reach(after: State, number: int) -> int:
        known = numbers.setdefault(after, len(order))
        if known == len(order):
            order.append(after)
            came.append(number)
        return known

    def exploration(wrong: str | None, number: int = 0) -> Exploration:
        trace = []
        while wrong is not None and number > 0:
            trace.append(search.describe(order[came[number]], order[number]))
            number = came[number]
        return Exploration(len(order), len(onward) + faults, wrong, tuple(reversed(trace)))

    number = 0
    while number < len(order):
        if number >= limit:
            raise RuntimeError(f"more than {limit:,} states")
        state = order[number]
        wrong = search.failed(state)
        for after, _ in search.onward(state):
            onward.append(reach(after, number))
        start.append(len(onward))
        ending.append(start[-1] == start[-2])
        if ending[-1] and wrong is None:
            wrong = model.at_rest(View(search, state))
        if wrong is not None:
            return exploration(wrong, number)
        if state[-1]:  # there are faults still to come
            for after, _ in search.befalling(state):
                reach(after, number)
                faults += 1
        number += 1

    changed = True
    while changed:
        changed = False
        for number in reversed(range(len(order))):
            if not ending[number]:
                for reached in onward[start[number] : start[number + 1]]:
                    if ending[reached]:
                        ending[number] = changed = True
                        break
    if not all(ending):
        return exploration("no end can be reached any more", ending.index(0))
    return exploration(None)
