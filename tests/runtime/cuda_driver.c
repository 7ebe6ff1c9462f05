/* A libcuda.so.1 for machines without a GPU: what pycuda and cuda-bindings need of it.

   Streams are threads that do their work in order and late. "Device memory" is host memory whose
   addresses are shifted, so that only the driver can use them. SIM_MEMORY limits it, in bytes.
   What a program must not do is counted; sim_count tells the counts, sim_misuse the last case. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK, INVALID_VALUE, OUT_OF_MEMORY, NOT_INITIALIZED, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
       INVALID_HANDLE = 400, NOT_FOUND = 500, CONTEXT_IS_DESTROYED = 709, LAUNCH_OUT_OF_RESOURCES = 701,
       CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901, CAPTURE_UNMATCHED = 903,
       CAPTURE_IMPLICIT = 906, CAPTURE_WRONG_THREAD = 908 };
enum { GLOBAL_MODE, THREAD_LOCAL_MODE, RELAXED_MODE, NO_MODE = -1 };
enum { MOST = 1 << 16, DEEPEST = 64 };
#define SHIFT ((uint64_t)1 << 60)

typedef struct Work { int kind; uint64_t target, source; size_t size; int value; struct Work *next; } Work;
enum { COPY, FILL, STOP };
typedef struct Stream {
    pthread_t thread; pthread_mutex_t lock; pthread_cond_t changed;
    Work *first, *last; long put, done; unsigned flags;
    int mode, invalid; pthread_t owner; Work *recorded, *recorded_last; struct Stream *next;
} Stream;
typedef struct { Work *first; } Graph;
typedef struct { uint64_t address; size_t size; void *host; } Block;
typedef struct { char magic[4], name[64]; int shared; } Function;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Block blocks[MOST], pins[MOST];
static int n_blocks, n_pins, ready, sticky, pop_fails, no_graphs;
static size_t used;
static Stream *streams;
static long n_streams, n_graphs, n_executables, n_modules, retained, generation, alive_context;
static long allocations, launches, captures, pageable, implicit, misuses, copies, fail_after = -1;
static char misuse_text[256];
static _Thread_local long stack[DEEPEST];
static _Thread_local int depth;

static void misuse(const char *text) {
    __atomic_add_fetch(&misuses, 1, __ATOMIC_SEQ_CST);
    snprintf(misuse_text, sizeof misuse_text, "%s", text);
}
static size_t limit(void) { const char *text = getenv("SIM_MEMORY"); return text ? strtoull(text, 0, 10) : (size_t)1 << 30; }
static Block *within(Block *table, int count, uint64_t address, size_t size) {
    for (int i = 0; i < count; i++)
        if (address >= table[i].address && address + size <= table[i].address + table[i].size) return &table[i];
    return NULL;
}

/* what tests ask and ask for */
long sim_count(const char *name) {
    struct { const char *name; long value; } all[] = {
        {"memory", n_blocks}, {"bytes", used}, {"pinned", n_pins}, {"streams", n_streams}, {"graphs", n_graphs},
        {"executables", n_executables}, {"modules", n_modules}, {"retained", retained}, {"depth", depth},
        {"allocations", allocations}, {"launches", launches}, {"captures", captures}, {"pageable", pageable},
        {"implicit", implicit}, {"misuses", misuses}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) if (!strcmp(all[i].name, name)) return all[i].value;
    return -1;
}
const char *sim_misuse(void) { return misuse_text; }
void sim_fail(int code) { sticky = code; }
void sim_fail_after(long more) { copies = 0; fail_after = more; } /* an illegal address, by the stream itself */
void sim_pop_fails(int yes) { pop_fails = yes; }
void sim_no_graphs(int yes) { no_graphs = yes; }

/* contexts */
#define READY do { if (!ready) return NOT_INITIALIZED; } while (0)
#define CURRENT do { READY; if (sticky) return sticky; if (!depth) { return INVALID_CONTEXT; } \
    if (stack[depth - 1] != alive_context) { misuse("a call with a context that is gone"); return CONTEXT_IS_DESTROYED; } } while (0)

int cuInit(unsigned flags) { ready = 1; return flags ? INVALID_VALUE : OK; }
int cuDriverGetVersion(int *version) { *version = 13000; return OK; }
int cuDeviceGetCount(int *count) { READY; *count = 1; return OK; }
int cuDeviceGet(int *device, int index) { READY; *device = 0; return index ? INVALID_DEVICE : OK; }
int cuDeviceGetName(char *name, int room, int device) { READY; snprintf(name, room, "Simulated GPU"); return OK; }
int cuDeviceComputeCapability(int *major, int *minor, int device) { READY; *major = 8; *minor = 6; return OK; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { READY; *value = attribute == 75 ? 8 : attribute == 76 ? 6 : 1; return OK; }
int cuDeviceTotalMem_v2(size_t *size, int device) { READY; *size = limit(); return OK; }
int cuDevicePrimaryCtxRetain(void **context, int device) {
    READY; if (sticky) return sticky;
    if (!retained++) alive_context = ++generation;
    *context = (void *)alive_context;
    return OK;
}
static void drain(void);
int cuDevicePrimaryCtxRelease_v2(int device) { /* takes the context off no thread's stack */
    READY; if (!retained) { misuse("the context is released too often"); return INVALID_CONTEXT; }
    if (--retained) return OK;
    drain();
    implicit += n_blocks + n_pins + n_streams + n_executables;
    alive_context = 0;
    return sticky;
}
int cuCtxPushCurrent_v2(void *context) {
    READY; if (pop_fails && sticky) return sticky;
    if ((long)context != alive_context) return CONTEXT_IS_DESTROYED;
    stack[depth++] = (long)context;
    return OK;
}
int cuCtxPopCurrent_v2(void **context) {
    READY; if (!depth) return INVALID_CONTEXT;
    if (pop_fails && sticky) return sticky;
    depth--;
    if (context) *context = (void *)stack[depth];
    return OK;
}
int cuCtxGetCurrent(void **context) { READY; *context = depth ? (void *)stack[depth - 1] : NULL; return OK; }
int cuCtxGetDevice(int *device) { CURRENT; *device = 0; return OK; }

/* captures: calls that may wait are refused to a thread that captures, and spoil its capture */
static int unsafe(void) {
    int refused = OK;
    pthread_mutex_lock(&lock);
    for (Stream *s = streams; s; s = s->next) {
        int ours = pthread_equal(s->owner, pthread_self());
        if (s->mode == GLOBAL_MODE || (s->mode == THREAD_LOCAL_MODE && ours)) s->invalid = refused = CAPTURE_UNSUPPORTED;
    }
    pthread_mutex_unlock(&lock);
    return refused;
}
static int default_stream(void) { /* its use waits for blocking streams, which a capture cannot */
    int refused = unsafe();
    pthread_mutex_lock(&lock);
    for (Stream *s = streams; s; s = s->next)
        if (s->mode != NO_MODE && !(s->flags & 1)) s->invalid = refused = CAPTURE_IMPLICIT;
    pthread_mutex_unlock(&lock);
    return refused;
}
#define SAFE do { CURRENT; int refused = unsafe(); if (refused) return refused; } while (0)

/* streams */
static void perform(Work *work) {
    if (sticky) return;
    if (fail_after >= 0 && __atomic_add_fetch(&copies, 1, __ATOMIC_SEQ_CST) > fail_after) { sticky = 700; return; }
    pthread_mutex_lock(&lock);
    uint64_t ends[2] = {work->target, work->kind == COPY ? work->source : work->target};
    for (int i = 0; i < 2; i++) {
        int device = ends[i] >= SHIFT;
        if (!within(device ? blocks : pins, device ? n_blocks : n_pins, ends[i], work->size))
            { misuse(device ? "a copy outside device memory" : "a copy outside pinned memory"); goto out; }
    }
    void *target = (void *)(ends[0] & ~SHIFT), *source = (void *)(ends[1] & ~SHIFT);
    if (work->kind == FILL) memset(target, work->value, work->size); else memmove(target, source, work->size);
out:
    pthread_mutex_unlock(&lock);
}
static void *serve(void *argument) {
    Stream *s = argument;
    unsigned seed = (unsigned)(uintptr_t)s;
    for (;;) {
        pthread_mutex_lock(&s->lock);
        while (!s->first) pthread_cond_wait(&s->changed, &s->lock);
        Work *work = s->first;
        pthread_mutex_unlock(&s->lock);
        usleep(rand_r(&seed) % 150);
        int stop = work->kind == STOP;
        if (!stop) perform(work);
        pthread_mutex_lock(&s->lock);
        s->first = work->next; s->done++;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
        free(work);
        if (stop) return NULL;
    }
}
static void put(Stream *s, Work work) {
    Work *one = malloc(sizeof *one); *one = work; one->next = NULL;
    pthread_mutex_lock(&s->lock);
    if (s->first) s->last->next = one; else s->first = one;
    s->last = one; s->put++;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}
static void finish(Stream *s) {
    pthread_mutex_lock(&s->lock);
    for (long until = s->put; s->done < until;) pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}
static void drain(void) {
    pthread_mutex_lock(&lock); Stream *all = streams; pthread_mutex_unlock(&lock);
    for (Stream *s = all; s; s = s->next) finish(s);
}
static Stream *known(void *handle) {
    pthread_mutex_lock(&lock);
    Stream *s = streams; while (s && s != handle) s = s->next;
    pthread_mutex_unlock(&lock);
    if (!s) misuse("a stream that does not exist");
    return s;
}
static int enqueue(void *handle, Work work) {
    CURRENT;
    Stream *s = known(handle); if (!s) return INVALID_HANDLE;
    if (s->mode == NO_MODE) { put(s, work); return OK; }
    if (s->invalid) return CAPTURE_INVALIDATED;
    Work *one = malloc(sizeof *one); *one = work; one->next = NULL;
    if (s->recorded) s->recorded_last->next = one; else s->recorded = one;
    s->recorded_last = one;
    return OK;
}
int cuStreamCreate(void **handle, unsigned flags) {
    SAFE; Stream *s = calloc(1, sizeof *s);
    pthread_mutex_init(&s->lock, 0); pthread_cond_init(&s->changed, 0);
    s->mode = NO_MODE; s->flags = flags;
    pthread_create(&s->thread, 0, serve, s);
    pthread_mutex_lock(&lock); s->next = streams; streams = s; n_streams++; pthread_mutex_unlock(&lock);
    *handle = s;
    return OK;
}
int cuStreamDestroy_v2(void *handle) {
    CURRENT; Stream *s = known(handle); if (!s) return INVALID_HANDLE;
    if (s->mode != NO_MODE) misuse("a stream is destroyed while it captures");
    put(s, (Work){STOP}); pthread_join(s->thread, 0);
    pthread_mutex_lock(&lock);
    Stream **at = &streams; while (*at != s) at = &(*at)->next;
    *at = s->next; n_streams--;
    pthread_mutex_unlock(&lock);
    return OK; /* its memory stays, so that no other stream gets the handle */
}
int cuStreamSynchronize(void *handle) {
    CURRENT; Stream *s = known(handle); if (!s) return INVALID_HANDLE;
    if (s->mode != NO_MODE) { s->invalid = CAPTURE_UNSUPPORTED; return CAPTURE_UNSUPPORTED; }
    finish(s);
    return sticky;
}
int cuCtxSynchronize(void) { SAFE; drain(); return sticky; }

/* graphs */
int cuStreamBeginCapture_v2(void *handle, int mode) {
    CURRENT; Stream *s = known(handle); if (!s) return INVALID_HANDLE;
    if (s->mode != NO_MODE) return CAPTURE_UNSUPPORTED;
    s->owner = pthread_self(); s->invalid = 0; s->recorded = NULL; s->mode = mode; captures++;
    return OK;
}
int cuStreamEndCapture(void *handle, void **graph) {
    *graph = NULL; READY; Stream *s = known(handle); if (!s) return INVALID_HANDLE;
    if (s->mode == NO_MODE) return CAPTURE_UNMATCHED;
    if (s->mode != RELAXED_MODE && !pthread_equal(s->owner, pthread_self())) return CAPTURE_WRONG_THREAD;
    s->mode = NO_MODE;
    if (sticky) return sticky;
    if (s->invalid) return CAPTURE_INVALIDATED;
    Graph *made = malloc(sizeof *made); made->first = s->recorded; *graph = made;
    __atomic_add_fetch(&n_graphs, 1, __ATOMIC_SEQ_CST);
    return OK;
}
int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
    CURRENT; if (no_graphs) return OUT_OF_MEMORY;
    Graph *made = malloc(sizeof *made); made->first = ((Graph *)graph)->first; *executable = made;
    __atomic_add_fetch(&n_executables, 1, __ATOMIC_SEQ_CST);
    return OK;
}
int cuGraphDestroy(void *graph) { __atomic_sub_fetch(&n_graphs, 1, __ATOMIC_SEQ_CST); free(graph); return OK; }
int cuGraphExecDestroy(void *executable) { __atomic_sub_fetch(&n_executables, 1, __ATOMIC_SEQ_CST); free(executable); return OK; }
int cuGraphLaunch(void *executable, void *handle) {
    CURRENT; __atomic_add_fetch(&launches, 1, __ATOMIC_SEQ_CST);
    for (Work *work = ((Graph *)executable)->first; work; work = work->next) {
        int failed = enqueue(handle, *work); if (failed) return failed;
    }
    return OK;
}

/* memory */
static int take(Block *table, int *count, size_t size, uint64_t shift, uint64_t *address) {
    if (!size) return INVALID_VALUE;
    pthread_mutex_lock(&lock);
    void *host = NULL;
    int failed = (shift && used + size > limit()) || posix_memalign(&host, 512, size);
    if (!failed) {
        memset(host, 0xA5, size);
        table[(*count)++] = (Block){*address = (uint64_t)host | shift, size, host};
        if (shift) { used += size; allocations++; }
    }
    pthread_mutex_unlock(&lock);
    return failed ? OUT_OF_MEMORY : OK;
}
static int give(Block *table, int *count, uint64_t address, int device) {
    drain(); /* as the driver waits for what still uses it */
    pthread_mutex_lock(&lock);
    int i = 0; while (i < *count && table[i].address != address) i++;
    int found = i < *count;
    if (found) { if (device) used -= table[i].size; free(table[i].host); table[i] = table[--*count]; }
    pthread_mutex_unlock(&lock);
    if (!found) misuse("memory that is not there is freed");
    return found ? OK : INVALID_VALUE;
}
int cuMemAlloc_v2(uint64_t *address, size_t size) { SAFE; return take(blocks, &n_blocks, size, SHIFT, address); }
int cuMemFree_v2(uint64_t address) { SAFE; return give(blocks, &n_blocks, address, 1); }
int cuMemHostAlloc(void **host, size_t size, unsigned flags) { SAFE; return take(pins, &n_pins, size, 0, (uint64_t *)host); }
int cuMemFreeHost(void *host) { SAFE; return give(pins, &n_pins, (uint64_t)host, 0); }
int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) { CURRENT; *total = limit(); *free_bytes = *total - used; return OK; }
static void check_pinned(const void *host, size_t size) {
    pthread_mutex_lock(&lock);
    if (!within(pins, n_pins, (uint64_t)host, size)) pageable++;
    pthread_mutex_unlock(&lock);
}
int cuMemcpyHtoDAsync_v2(uint64_t target, const void *source, size_t size, void *stream) {
    check_pinned(source, size); return enqueue(stream, (Work){COPY, target, (uint64_t)source, size});
}
int cuMemcpyDtoHAsync_v2(void *target, uint64_t source, size_t size, void *stream) {
    check_pinned(target, size); return enqueue(stream, (Work){COPY, (uint64_t)target, source, size});
}
int cuMemcpyDtoDAsync_v2(uint64_t target, uint64_t source, size_t size, void *stream) {
    return enqueue(stream, (Work){COPY, target, source, size});
}
int cuMemsetD8Async(uint64_t target, unsigned char value, size_t size, void *stream) {
    return enqueue(stream, (Work){FILL, target, 0, size, value});
}
static int copy_now(uint64_t address, void *host, size_t size, int to_device) {
    CURRENT; int refused = default_stream(); if (refused) return refused;
    pthread_mutex_lock(&lock);
    int found = within(blocks, n_blocks, address, size) != NULL;
    pthread_mutex_unlock(&lock);
    if (!found) return INVALID_VALUE;
    void *device = (void *)(address & ~SHIFT);
    memcpy(to_device ? device : host, to_device ? host : device, size);
    return OK;
}
int cuMemcpyHtoD_v2(uint64_t target, const void *source, size_t size) { return copy_now(target, (void *)source, size, 1); }
int cuMemcpyDtoH_v2(void *target, uint64_t source, size_t size) { return copy_now(source, target, size, 0); }

/* kernels: "copy" copies (from, bytes, to), "fail" fails, whatever the machine code is */
int cuModuleLoadDataEx(void **module, const void *image, unsigned count, int *options, void **values) {
    SAFE; if (!memcmp(image, "BAD", 3)) return 200;
    for (unsigned i = 0; i < count; i++) if (options[i] == 4 || options[i] == 6) values[i] = 0; /* lengths of the logs */
    *module = calloc(1, sizeof(Function)); n_modules++;
    return OK;
}
int cuModuleUnload(void *module) { SAFE; free(module); n_modules--; return OK; }
int cuModuleGetFunction(void **function, void *module, const char *name) {
    CURRENT; if (!strcmp(name, "missing")) return NOT_FOUND;
    snprintf(((Function *)module)->name, 64, "%s", name); *function = module;
    return OK;
}
int cuFuncSetAttribute(void *function, int attribute, int value) { CURRENT; ((Function *)function)->shared = value; return value > 101376; }
int cuFuncGetAttribute(int *value, int attribute, void *function) { CURRENT; *value = 0; return OK; }
int cuFuncSetBlockShape(void *function, int x, int y, int z) { CURRENT; return OK; }
int cuLaunchKernel(void *handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **parameters, void **extra) {
    CURRENT; Function *function = handle; char *packed = NULL; size_t size = 0;
    if (!gx || !gy || gy > 65535 || bx * by * bz > 1024 || (shared > 49152 && (int)shared > function->shared)) return INVALID_VALUE;
    for (; extra && *extra; extra += 2) {
        if (*extra == (void *)1) packed = extra[1];
        if (*extra == (void *)2) size = *(size_t *)extra[1];
    }
    if (!strcmp(function->name, "fail")) return LAUNCH_OUT_OF_RESOURCES;
    if (!strcmp(function->name, "copy")) {
        uint64_t from, to; int32_t bytes;
        if (!packed || size != 24) return INVALID_VALUE;
        memcpy(&from, packed, 8); memcpy(&bytes, packed + 8, 4); memcpy(&to, packed + 16, 8);
        if (bytes < 0 || !within(blocks, n_blocks, from, bytes) || !within(blocks, n_blocks, to, bytes)) return INVALID_VALUE;
        memcpy((void *)(to & ~SHIFT), (void *)(from & ~SHIFT), bytes);
    }
    launches++;
    return OK;
}

int cuGetErrorString(int error, const char **text) {
    *text = error == OUT_OF_MEMORY ? "out of memory" : error == 700 ? "an illegal memory access was encountered"
        : error == LAUNCH_OUT_OF_RESOURCES ? "too many resources requested for launch" : error == INVALID_CONTEXT
        ? "invalid device context" : "some error";
    return OK;
}
/* cuda-bindings asks by the plain name and means the newest form of a function */
int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, int *status) {
    char full[128];
    const char *endings[] = {"WithFlags", "_v2", ""};
    Dl_info here;
    dladdr((void *)cuInit, &here);
    void *library = dlopen(here.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    for (int i = 0; i < 3; i++) {
        if (!i && strcmp(name, "cuGraphInstantiate")) continue;
        snprintf(full, sizeof full, "%s%s", name, endings[i]);
        if ((*function = dlsym(library, full))) break;
    }
    if (status) *status = *function ? 0 : 1;
    return *function ? OK : NOT_FOUND;
}
