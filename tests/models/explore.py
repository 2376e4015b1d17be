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
buffers and the faults still to come, all hashable; `explore` searches them breadth first, so the
trace of a counterexample is a shortest one.

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
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

Value = TypeVar("Value")
State = tuple[Any, ...]


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
WAYS = 3  # to each place, of which it is proved that they do not matter
Frames = tuple[tuple[int, tuple[tuple[str, Any], ...]], ...]


class Places:
    """The places of one program, numbered as they are found."""

    def __init__(self, name: str, starts: list[Callable[[], Program]]) -> None:
        self.name = name
        self.starts = starts
        self.steps: list[Step | None] = [None, None]
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
        self.frames.append(frames)
        self._after.append({})
        self._ways.append([way])


class View:
    """One state, to be judged by name."""

    def __init__(self, search: Search, state: State) -> None:
        self._search = search
        self._memory, self._places = state[0], state[1]

    def __getitem__(self, word: str) -> Any:
        return self._memory[self._search.index[word]]

    def status(self, process: str) -> str:
        """One of "ended", "killed", "frozen" and "waiting"."""
        place = self._places[self._search.process[process]]
        if place < 0:
            return "frozen"
        return {ENDED: "ended", KILLED: "killed"}.get(place, "waiting")

    def local(self, process: str, name: str) -> Any:
        """A local variable of a program that has not ended."""
        number = self._search.process[process]
        place = self._places[number]
        return self._search.places[number].local(~place if place < 0 else place, name)


class Search:
    """The state space of one model."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.names = list(model.programs)
        self.process = {name: number for number, name in enumerate(self.names)}
        self.words = list(model.words)
        self.unseen = ("store", "fence", "choose") if model.buffered else ("fence", "choose")
        self.index = {word: number for number, word in enumerate(self.words)}
        self.places = [
            Places(
                name, [model.programs[name], *([model.heirs[name]] if name in model.heirs else [])]
            )
            for name in self.names
        ]

    def first(self) -> State:
        return (
            tuple(self.model.words.values()),
            tuple(places.start(0) for places in self.places),
            ((),) * len(self.names),
            (self.model.kills, self.model.freezes, self.model.interrupts),
        )

    def onward(self, state: State) -> Iterator[tuple[State, int, object]]:
        """The states that the programs and the store buffers make of this one, with who did what.

        A step that no other program can see or prevent (such as filling its own store buffer) is
        taken at once, alone: taken later it would lead to the same.
        """
        memory, places, buffers, faults = state
        ready = []
        for who, place in enumerate(places):
            step = self.places[who].steps[place] if place > KILLED else None
            if step is not None:
                if step.kind in self.unseen and not (step.kind == "fence" and buffers[who]):
                    ready = [(who, step)]
                    break
                ready.append((who, step))
        else:
            for who, buffer in enumerate(buffers):
                if buffer:
                    at, value = buffer[0]
                    drained = (*buffers[:who], buffer[1:], *buffers[who + 1 :])
                    what = Step("has in memory", self.words[at], value)
                    yield (
                        ((*memory[:at], value, *memory[at + 1 :]), places, drained, faults),
                        who,
                        what,
                    )
        for who, step in ready:
            program, buffer = self.places[who], buffers[who]
            if step.kind == "store" and self.model.buffered:
                moved = (*places[:who], program.after(places[who], None), *places[who + 1 :])
                filled = (
                    *buffers[:who],
                    (*buffer, (self.index[step.word], step.value)),
                    *buffers[who + 1 :],
                )
                yield (memory, moved, filled, faults), who, step
                continue
            for answer, changed in self.outcomes(step, memory, buffer, state):
                moved = (*places[:who], program.after(places[who], answer), *places[who + 1 :])
                yield (
                    (changed, moved, buffers, faults),
                    who,
                    step if answer is None else f"{step} -> {answer}",
                )

    def outcomes(
        self, step: Step, memory: State, buffer: State, state: State
    ) -> Iterator[tuple[Any, State]]:
        """Each answer that the step may have now, with the memory after it; none: it must wait."""
        kind, word, value = step
        if kind == "choose":
            for option in value:
                yield option, memory
            return
        if kind == "until_dead":
            other = self.process[word]
            if state[1][other] == KILLED and not state[2][other]:
                yield None, memory
            return
        if kind == "atomic":
            words = dict(zip(self.words, memory, strict=True))
            answer = value(words)
            if answer is not None and not buffer:
                yield answer, tuple(words.values())
            return
        at = self.index[word] if word else 0
        present = memory[at]
        if kind == "load":
            for buffered, latest in buffer:
                if buffered == at:
                    present = latest
            yield present, memory
        elif buffer:
            pass  # a locked operation waits until the store buffer is empty
        elif kind in ("store", "store_seq"):
            yield None, (*memory[:at], value, *memory[at + 1 :])
        elif kind == "fence":
            yield None, memory
        elif kind == "exchange":
            yield present, (*memory[:at], value, *memory[at + 1 :])
        elif kind == "sem_post":
            yield None, (*memory[:at], present + 1, *memory[at + 1 :])
        elif kind in ("sem_trywait", "sem_wait"):
            if present:
                yield True, (*memory[:at], present - 1, *memory[at + 1 :])
            elif kind == "sem_trywait":
                yield False, memory
        elif kind == "until":
            if present >= value:
                yield present, memory
        else:
            raise TypeError(f"no such step: {step}")

    def befalling(self, state: State) -> Iterator[tuple[State, str]]:
        """The states that faults can make of this one."""
        memory, places, buffers, (kills, freezes, interrupts) = state
        if kills:
            for name in self.model.mortal:
                who = self.process[name]
                if places[who] > KILLED:
                    heir = self.places[who].start(1) if name in self.model.heirs else KILLED
                    after = (*places[:who], heir, *places[who + 1 :])
                    yield (
                        (memory, after, buffers, (kills - 1, freezes, interrupts)),
                        f"{name} is killed",
                    )
        if freezes:
            for name in self.model.freezable:
                who = self.process[name]
                if places[who] > KILLED:
                    after = (*places[:who], ~places[who], *places[who + 1 :])
                    yield (
                        (memory, after, buffers, (kills, freezes - 1, interrupts)),
                        f"{name} is frozen",
                    )
        if interrupts:
            for who, name in enumerate(self.names):
                place = places[who]
                step = self.places[who].steps[place] if place > KILLED else None
                if step is not None and step.kind == "sem_wait" and not buffers[who]:
                    after = (
                        *places[:who],
                        self.places[who].after(place, False),
                        *places[who + 1 :],
                    )
                    yield (
                        (memory, after, buffers, (kills, freezes, interrupts - 1)),
                        f"{name} is interrupted",
                    )

    def failed(self, state: State) -> str | None:
        for who, place in enumerate(state[1]):
            if place in self.places[who].failed:
                return self.places[who].failed[place]
        return self.model.invariant(View(self, state)) if self.model.invariant else None

    def describe(self, state: State, after: State) -> str:
        """How the one state became the other."""
        for reached, who, what in self.onward(state):
            if reached == after:
                return f"{self.names[who]}: {what}"
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
        for after, _, _ in search.onward(state):
            onward.append(reach(after, number))
        start.append(len(onward))
        ending.append(start[-1] == start[-2])
        if ending[-1] and wrong is None:
            wrong = model.at_rest(View(search, state))
        if wrong is not None:
            return exploration(wrong, number)
        for after, _ in search.befalling(state):
            reach(after, number)
            faults += 1
        number += 1

    changed = True
    while changed:
        changed = False
        for number in reversed(range(len(order))):
            if not ending[number] and any(
                ending[after] for after in onward[start[number] : start[number + 1]]
            ):
                ending[number] = changed = True
    if not all(ending):
        return exploration("no end can be reached any more", ending.index(0))
    return exploration(None)
