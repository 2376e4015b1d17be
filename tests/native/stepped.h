/* A process that is stopped after each instruction that may have changed the arena.
 *
 * To it the arena is read-only. An instruction that writes there faults: the handler permits it, and has the processor
 * trap after it; then the arena is read-only again, and the process stops. So the others, twenty times as many, cost
 * nothing. Elsewhere than on x86-64 the process is traced, and stops after every instruction. */
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arena.h"
#include "check.h"

#ifdef __x86_64__
#include <sys/mman.h>
#include <sys/prctl.h>
#include <ucontext.h>

#define TRAP_FLAG 0x100

static void protect_arena(int how)
{
    if (mprotect(arena, arena_size, how))
        abort();
}

static void arena_written(int number, siginfo_t *what, void *context)
{
    uint8_t *at = what->si_addr;
    if (at < arena || at >= arena + arena_size) {
        signal(number, SIG_DFL); /* a fault of the program under test: it ends with it */
        return;
    }
    protect_arena(PROT_READ | PROT_WRITE);
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

static void instruction_done(int number, siginfo_t *what, void *context)
{
    (void)number, (void)what;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
    protect_arena(PROT_READ);
    raise(SIGSTOP);
}

/* In the child: its steps begin here. */
static inline void begin_steps(void)
{
    struct sigaction action = {.sa_flags = SA_SIGINFO, .sa_sigaction = arena_written};
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
    action.sa_sigaction = instruction_done;
    CHECK(sigaction(SIGTRAP, &action, NULL) == 0);
    protect_arena(PROT_READ);
    raise(SIGSTOP);
}

static inline void step_with_parent(pid_t parent)
{
    CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent);
}

static inline void step_child(pid_t child) { (void)child; }
static inline bool go_on(pid_t child) { return kill(child, SIGCONT) == 0; }
#else
#include <sys/ptrace.h>

static inline void begin_steps(void) { raise(SIGSTOP); }

static inline void step_with_parent(pid_t parent)
{
    (void)parent;
    CHECK(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0);
}

static inline void step_child(pid_t child) { CHECK(ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_EXITKILL) == 0); }
static inline bool go_on(pid_t child) { return ptrace(PTRACE_SINGLESTEP, child, 0, 0) == 0; }
#endif

/* A child, which ends if its parent does, when it has come to its begin_steps(). */
static inline pid_t stepped_child(void)
{
    pid_t parent = getpid(), child = fork();
    int status;
    CHECK(child >= 0);
    if (!child) {
        step_with_parent(parent);
    } else {
        CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
        step_child(child);
    }
    return child;
}

/* One step. False: the child has ended, as it should. */
static inline bool step(pid_t child)
{
    int status;
    CHECK(go_on(child));
    CHECK(waitpid(child, &status, WUNTRACED) == child);
    CHECK(WIFSTOPPED(status) || status == 0);
    return WIFSTOPPED(status);
}
