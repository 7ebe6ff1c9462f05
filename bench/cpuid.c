/* Preloaded by bench/cpu.py: the processes below it see a processor with fewer instruction sets.
 *
 * Linux lets the CPUID instruction fault (arch_prctl(2), ARCH_SET_CPUID); the fault is answered with
 * what the processor says, less the bits of CPUID_MASK: words of "leaf subleaf eax ebx ecx edx" in
 * hexadecimal, bits to clear. CPUID_CPUINFO is read in place of /proc/cpuinfo. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

typedef struct {
    uint32_t leaf, subleaf, clear[4];
} Mask;

static Mask masks[16];
static int count;
static struct sigaction theirs; /* the program's own handler of SIGSEGV */

static long faulting(int on) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, !on); }

static void answer(greg_t *registers) {
    uint32_t leaf = (uint32_t)registers[REG_RAX], subleaf = (uint32_t)registers[REG_RCX];
    uint32_t a = leaf, b, c = subleaf, d;
    faulting(0);
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    faulting(1);
    for (int i = 0; i < count; i++)
        if (masks[i].leaf == leaf && masks[i].subleaf == subleaf) {
            a &= ~masks[i].clear[0];
            b &= ~masks[i].clear[1];
            c &= ~masks[i].clear[2];
            d &= ~masks[i].clear[3];
        }
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

static void on_fault(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *code = (const uint8_t *)registers[REG_RIP];
    /* Of a general protection fault, as CPUID's is, Linux gives no address. */
    if (info->si_code == SI_KERNEL && code[0] == 0x0f && code[1] == 0xa2)
        answer(registers);
    else if (theirs.sa_flags & SA_SIGINFO)
        theirs.sa_sigaction(number, info, context);
    else if (theirs.sa_handler != SIG_DFL && theirs.sa_handler != SIG_IGN)
        theirs.sa_handler(number);
    else
        NEXT(signal)(SIGSEGV, SIG_DFL); /* it faults again, and ends */
}

int sigaction(int number, const struct sigaction *new, struct sigaction *old) {
    if (number != SIGSEGV) return NEXT(sigaction)(number, new, old);
    if (old) *old = theirs;
    if (new) theirs = *new;
    return 0;
}

sighandler_t signal(int number, sighandler_t handler) {
    if (number != SIGSEGV) return NEXT(signal)(number, handler);
    sighandler_t before = theirs.sa_handler;
    memset(&theirs, 0, sizeof theirs);
    theirs.sa_handler = handler;
    return before;
}

/* A fault while SIGSEGV is blocked ends the process. */
int pthread_sigmask(int how, const sigset_t *set, sigset_t *old) {
    sigset_t less;
    if (set && how != SIG_UNBLOCK) {
        less = *set;
        sigdelset(&less, SIGSEGV);
        set = &less;
    }
    return NEXT(pthread_sigmask)(how, set, old);
}

static const char *instead(const char *path) {
    const char *cpuinfo = getenv("CPUID_CPUINFO");
    return cpuinfo && !strcmp(path, "/proc/cpuinfo") ? cpuinfo : path;
}

static mode_t mode_of(int flags, va_list rest) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
}

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...) {                                                   \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode_t mode = mode_of(flags, rest);                                                        \
        va_end(rest);                                                                              \
        return NEXT(name)(instead(path), flags, mode);                                             \
    }
OPEN(open)
OPEN(open64)
FILE *fopen(const char *path, const char *mode) { return NEXT(fopen)(instead(path), mode); }
FILE *fopen64(const char *path, const char *mode) { return NEXT(fopen64)(instead(path), mode); }

__attribute__((constructor)) static void begin(void) {
    const char *rest = getenv("CPUID_MASK");
    for (int used; rest && count < 16; count++, rest += used) {
        Mask *m = &masks[count];
        if (sscanf(rest, "%x %x %x %x %x %x %n", &m->leaf, &m->subleaf, &m->clear[0], &m->clear[1],
                   &m->clear[2], &m->clear[3], &used) != 6)
            break;
    }
    struct sigaction ours = {.sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART};
    ours.sa_sigaction = on_fault;
    NEXT(sigaction)(SIGSEGV, &ours, NULL);
    if (faulting(1)) {
        perror("this processor, or its hypervisor, cannot let CPUID fault");
        _exit(3);
    }
}
