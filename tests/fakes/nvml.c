/* A stand-in for libnvidia-ml.so.1 that tells what the text file $FAKE_NVML says, read anew at every call.

   Its first line is about the library:   library=ok|not_loaded|hang|mismatch  driver=570.124.06  cuda=12080
   Every further line is a card:          state=ok|lost|hang  name=NVIDIA H200  uuid=GPU-1  total=...  used=...
     nvlinks=switch,00000000:1C:00.0,-    what is at the other end of each NVLink; "-" is one that is down
     path=0.1.2.3                         NUMA node, host bridge, first switch, last switch: what a card hangs from
     parted=1                             the switch gives it no way to other cards
   After the cards, a line for each MIG instance:  of=0  slot=2  name=...  uuid=MIG-1  total=...  used=...
   A word whose value is "!N" is answered with error N.    Words are parted by a tab. A word that a card does not have is answered with "not supported". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, NOT_LOADED = 9, LOST = 15, MISMATCH = 18 };

static char text[16384];

static char *line(int wanted) {
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return NULL;
    char *found = NULL;
    for (int at = 0; !found && fgets(text, sizeof text, file); at++) if (at == wanted) found = text;
    fclose(file);
    if (found) found[strcspn(found, "\n")] = 0;
    return found && *found ? found : NULL;
}

/* The value of a word on a line, or NULL; good until the next call. */
static const char *word(int number, const char *name) {
    char *rest = line(number);
    size_t length = strlen(name);
    for (char *one = rest ? strtok_r(rest, "\t", &rest) : NULL; one; one = strtok_r(NULL, "\t", &rest))
        if (!strncmp(one, name, length) && one[length] == '=') return one + length + 1;
    return NULL;
}

static int library(void) {
    const char *state = word(0, "library");
    if (!state || !strcmp(state, "not_loaded")) return NOT_LOADED;
    if (!strcmp(state, "mismatch")) return MISMATCH;
    while (!strcmp(state, "hang")) pause();
    return OK;
}

static int card(void *device) {
    const char *state = word((int)(long)device, "state");
    if (!state) return INVALID_ARGUMENT;
    if (!strcmp(state, "lost")) return LOST;
    while (!strcmp(state, "hang")) pause();
    return OK;
}

static int tell_text(int number, const char *name, char *out, unsigned length) {
    const char *value = word(number, name);
    if (!value) return NOT_SUPPORTED;
    if (*value == '!') return atoi(value + 1);
    if (strlen(value) + 1 > length) return INSUFFICIENT_SIZE;
    strcpy(out, value);
    return OK;
}

static int tell_number(void *device, const char *name, unsigned long long *out) {
    int error = card(device);
    const char *value = error ? NULL : word((int)(long)device, name);
    if (value && *value == '!') return atoi(value + 1);
    if (value) *out = strtoull(value, NULL, 10);
    return error ? error : value ? OK : NOT_SUPPORTED;
}

static int tell_unsigned(void *device, const char *name, unsigned *out) {
    unsigned long long wide = 0;
    int error = tell_number(device, name, &wide);
    *out = (unsigned)wide;
    return error;
}

int nvmlInit_v2(void) { return library(); }
int nvmlInitWithFlags(unsigned flags) { (void)flags; return library(); }
int nvmlShutdown(void) { return OK; }

const char *nvmlErrorString(int error) {
    switch (error) {
    case OK: return "Success";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case NOT_LOADED: return "Driver Not Loaded";
    case LOST: return "GPU is lost";
    case MISMATCH: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *out, unsigned length) { return tell_text(0, "driver", out, length); }
int nvmlSystemGetCudaDriverVersion(int *out) { const char *v = word(0, "cuda"); *out = v ? atoi(v) : 0; return v ? OK : NOT_SUPPORTED; }
int nvmlSystemGetCudaDriverVersion_v2(int *out) { return nvmlSystemGetCudaDriverVersion(out); }

int nvmlDeviceGetCount_v2(unsigned *out) { for (*out = 0; line((int)*out + 1) && !word((int)*out + 1, "of"); ++*out); return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out) {
    if (!line((int)index + 1)) return INVALID_ARGUMENT;
    const char *state = word((int)index + 1, "state");
    if (state && !strcmp(state, "locked")) return NO_PERMISSION;
    *out = (void *)(long)(index + 1);
    return OK;
}
int nvmlDeviceGetIndex(void *device, unsigned *out) { *out = (unsigned)(long)device - 1; return OK; }
int nvmlDeviceGetMinorNumber(void *device, unsigned *out) { return nvmlDeviceGetIndex(device, out); }

int nvmlDeviceGetName(void *device, char *out, unsigned length) { int e = card(device); return e ? e : tell_text((int)(long)device, "name", out, length); }
int nvmlDeviceGetUUID(void *device, char *out, unsigned length) { int e = card(device); return e ? e : tell_text((int)(long)device, "uuid", out, length); }

typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;

int nvmlDeviceGetMemoryInfo(void *device, memory *out) {
    int error = tell_number(device, "total", &out->total);
    if (!error) error = tell_number(device, "used", &out->used);
    out->free = out->total - out->used;
    return error;
}
int nvmlDeviceGetMemoryInfo_v2(void *device, memory_v2 *out) {
    memory plain = {0};
    int error = nvmlDeviceGetMemoryInfo(device, &plain);
    out->total = plain.total, out->used = plain.used, out->free = plain.free, out->reserved = 0;
    return error;
}

typedef struct { unsigned gpu, memory; } utilization;
int nvmlDeviceGetUtilizationRates(void *device, utilization *out) {
    int error = tell_unsigned(device, "util", &out->gpu);
    if (tell_unsigned(device, "memutil", &out->memory)) out->memory = 0;
    return error;
}
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *out) { (void)sensor; return tell_unsigned(device, "temp", out); }
typedef struct { unsigned version; int sensor; int temperature; } temperature;
int nvmlDeviceGetTemperatureV(void *device, temperature *out) { return tell_unsigned(device, "temp", (unsigned *)&out->temperature); }
int nvmlDeviceGetPowerUsage(void *device, unsigned *out) { return tell_unsigned(device, "power", out); }
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *out) { return tell_unsigned(device, "limit", out); }
int nvmlDeviceGetNumGpuCores(void *device, unsigned *out) { return tell_unsigned(device, "cores", out); }
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    int error = card(device);
    const char *value = error ? NULL : word((int)(long)device, "cc");
    if (error) return error;
    return value && sscanf(value, "%d.%d", major, minor) == 2 ? OK : NOT_SUPPORTED;
}
int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *next) {
    int error = tell_unsigned(device, "mig", now);
    *next = *now;
    return error;
}


/* The line of the MIG instance in a slot of a card, or 0. */
static int instance(void *device, int slot) {
    for (int at = 1; line(at); at++) {
        const char *value = word(at, "of");
        if (!value || atoi(value) != (int)(long)device - 1) continue;
        value = word(at, "slot");
        if (value && atoi(value) == slot) return at;
    }
    return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *out) { *out = 7; return card(device); }
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned slot, void **out) {
    int error = card(device), found = error ? 0 : instance(device, (int)slot);
    *out = (void *)(long)found;
    return error ? error : found ? OK : NOT_FOUND;
}

typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci;
static int address(const char *text, pci *out) {
    memset(out, 0, sizeof *out);
    if (!text || sscanf(text, "%x:%x:%x", &out->domain, &out->bus, &out->device) != 3) return NOT_SUPPORTED;
    snprintf(out->bus_id, sizeof out->bus_id, "%.31s", text);
    return OK;
}
int nvmlDeviceGetPciInfo_v3(void *device, pci *out) {
    int error = card(device);
    return error ? error : address(word((int)(long)device, "bus"), out);
}

/* What is at the other end of one NVLink of a card, or NULL where it has no link of that number. */
static const char *end_of(void *device, unsigned link) {
    static char one[32];
    const char *value = word((int)(long)device, "nvlinks");
    for (; value && link; link--) if ((value = strchr(value, ','))) value++;
    if (!value) return NULL;
    snprintf(one, sizeof one, "%.*s", (int)strcspn(value, ","), value);
    return one;
}
int nvmlDeviceGetNvLinkState(void *device, unsigned link, unsigned *out) {
    int error = card(device);
    const char *end = error ? NULL : end_of(device, link);
    if (error) return error;
    if (!end) return word((int)(long)device, "nvlinks") ? INVALID_ARGUMENT : NOT_SUPPORTED;
    *out = strcmp(end, "-") != 0;
    return OK;
}
int nvmlDeviceGetNvLinkRemoteDeviceType(void *device, unsigned link, int *out) {
    const char *end = end_of(device, link);
    *out = end && !strcmp(end, "switch") ? 2 : 0;
    return end ? OK : INVALID_ARGUMENT;
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void *device, unsigned link, pci *out) { return address(end_of(device, link), out); }

int nvmlDeviceGetTopologyCommonAncestor(void *device, void *other, int *out) {
    static const int levels[] = {50, 40, 30, 20, 10};
    char first[64];
    int error = card(device);
    const char *value = error ? NULL : word((int)(long)device, "path");
    if (error) return error;
    if (!value) return NOT_SUPPORTED;
    snprintf(first, sizeof first, "%s.", value);
    value = word((int)(long)other, "path");
    if (!value) return NOT_SUPPORTED;
    int same = 0;
    for (int at = 0; first[at] && first[at] == (value[at] ? value[at] : '.'); at++) {
        if (first[at] == '.') same++;
        if (!value[at]) break;
    }
    *out = levels[same];
    return OK;
}
int nvmlDeviceGetP2PStatus(void *device, void *other, int index, int *out) {
    (void)index;
    *out = word((int)(long)device, "parted") || word((int)(long)other, "parted") ? 3 : 0;
    return OK;
}

/* processes=PID:BYTES,PID:BYTES */
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } user;
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, user *out) {
    int error = card(device);
    const char *value = error ? NULL : word((int)(long)device, "processes");
    unsigned found = 0, room = *count;
    if (error) return error;
    while (value && *value) {
        user one = {0, 0, 0xFFFFFFFF, 0xFFFFFFFF};
        if (sscanf(value, "%u:%llu", &one.pid, &one.used) != 2) break;
        if (found < room) out[found] = one;
        found++;
        value = strchr(value, ',');
        if (value) value++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : OK;
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, user *out) { (void)out; *count = 0; return card(device); }
