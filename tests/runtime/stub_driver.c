/* A libcuda.so.1 of two GPUs at most, for machines without one; its state is compiled in:
   INIT (what cuInit returns), VERSION, COUNT, and RETAIN (what taking a context returns). */
#include <stddef.h>
#include <string.h>

static int contexts;

int cuInit(unsigned flags) { return flags ? 1 : INIT; }
int cuDriverGetVersion(int *version) { return *version = VERSION, 0; }
int cuDeviceGetCount(int *count) { return *count = COUNT, 0; }
int cuDeviceGet(int *device, int index) { return *device = index + 7, index < 0 || index >= COUNT ? 101 : 0; }
int cuDeviceGetName(char *name, int room, int device) {
    return strncpy(name, device == 7 ? "Stub RTX 3060" : "Stub H100", room), 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (attribute != 75 && attribute != 76) return 1;
    *value = attribute == 75 ? (device == 7 ? 8 : 9) : (device == 7 ? 6 : 0);
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { return *bytes = (size_t)(device - 6) * 12 << 30, 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { return *context = &contexts, RETAIN; }
int cuCtxPushCurrent_v2(void *context) { return context == &contexts ? contexts++, 0 : 201; }
int cuCtxPopCurrent_v2(void **context) { return *context = &contexts, contexts-- > 0 ? 0 : 201; }
int cuDevicePrimaryCtxRelease_v2(int device) { return contexts ? 1 : 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) {
    return *free = (size_t)5 << 30, *total = (size_t)12 << 30, contexts == 1 ? 0 : 201;
}
int cuGetErrorString(int error, const char **text) {
    return *text = error == 999 ? "unknown error" : error == 2 ? "out of memory" : NULL, *text ? 0 : 1;
}
