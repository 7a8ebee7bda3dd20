/* Loads a PKCS#11 module over and over, and forks with it.
 *
 * usage: cycles MODULE LOADS FORKS
 *
 * It has no header of the standard: what it calls, it calls by place in the function list, as C lays it
 * out, so it would see a list that is laid out otherwise.
 */
#include <dlfcn.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef unsigned long ulong_t;
typedef ulong_t (*function)();

struct list {
    unsigned char version[2];
    function entries[68];
};

struct attribute {
    ulong_t type;
    void *value;
    ulong_t length;
};

struct mechanism {
    ulong_t name;
    void *parameter;
    ulong_t length;
};

enum { INITIALIZE = 0, FINALIZE = 1, OPEN_SESSION = 12, FIND_INIT = 26, FIND = 27, FIND_FINAL = 28,
       SIGN_INIT = 42, SIGN = 43, GENERATE_RANDOM = 64 };
enum { CKO_PRIVATE_KEY = 3, CKM_ECDSA = 0x1041, CKF_SERIAL_SESSION = 4,
       CKR_FUNCTION_NOT_SUPPORTED = 0x54, CKR_CRYPTOKI_NOT_INITIALIZED = 0x190 };

static struct list *list;

static void must(const char *what, ulong_t code)
{
    if (code != 0) {
        fprintf(stderr, "[%d] %s: %#lx\n", (int)getpid(), what, code);
        exit(1);
    }
}

/* From C_Initialize to a signature. */
static void sign(int initialize)
{
    static ulong_t session;
    if (initialize) {
        must("C_Initialize", list->entries[INITIALIZE](NULL));
        must("C_OpenSession",
             list->entries[OPEN_SESSION](0UL, (ulong_t)CKF_SERIAL_SESSION, NULL, NULL, &session));
    }
    ulong_t class = CKO_PRIVATE_KEY, key, count;
    struct attribute template = {0, &class, sizeof class};
    must("C_FindObjectsInit", list->entries[FIND_INIT](session, &template, 1UL));
    must("C_FindObjects", list->entries[FIND](session, &key, 1UL, &count));
    must("C_FindObjectsFinal", list->entries[FIND_FINAL](session));
    must("one key", count != 1);
    unsigned char digest[32], signature[64];
    memset(digest, 7, sizeof digest);
    ulong_t length = sizeof signature;
    struct mechanism ecdsa = {CKM_ECDSA, NULL, 0};
    must("C_SignInit", list->entries[SIGN_INIT](session, &ecdsa, key));
    must("C_Sign", list->entries[SIGN](session, digest, sizeof digest, signature, &length));
    must("64 bytes", length != 64);
}

static void load(const char *path, void **module)
{
    *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (*module == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    function get = (function)dlsym(*module, "C_GetFunctionList");
    must("C_GetFunctionList", get(&list));
}

static int open_files(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

static long memory_kib(void)
{
    long pages, resident;
    FILE *file = fopen("/proc/self/statm", "r");
    int read = fscanf(file, "%ld %ld", &pages, &resident);
    fclose(file);
    return read == 2 ? resident * (sysconf(_SC_PAGESIZE) / 1024) : -1;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    int loads = atoi(argv[2]), forks = atoi(argv[3]);
    void *module;

    int files = 0;
    long memory = 0;
    for (int i = 0; i < loads; i++) {
        load(argv[1], &module);
        if (i % 100 == 0) {
            sign(1); /* with connections */
        } else {
            must("C_Initialize", list->entries[INITIALIZE](NULL));
        }
        must("C_Finalize", list->entries[FINALIZE](NULL));
        dlclose(module);
        if (i == loads / 2) {
            files = open_files();
            memory = memory_kib();
        }
    }
    must("no descriptor is left", open_files() > files);
    must("memory does not grow by a MiB", memory_kib() > memory + 1024);

    load(argv[1], &module);
    must("an entry that is not there",
         list->entries[GENERATE_RANDOM](0UL, NULL, 0UL) != CKR_FUNCTION_NOT_SUPPORTED);
    sign(1);
    for (int i = 0; i < forks; i++) {
        pid_t child = fork();
        if (child == 0) {
            if (list->entries[OPEN_SESSION](0UL, (ulong_t)CKF_SERIAL_SESSION, NULL, NULL, NULL)
                != CKR_CRYPTOKI_NOT_INITIALIZED)
                _exit(3);
            sign(1);
            if (i % 2 == 0)
                must("C_Finalize", list->entries[FINALIZE](NULL));
            _exit(0);
        }
        sign(0); /* the parent's connection is still the parent's */
        int status;
        waitpid(child, &status, 0);
        must("the child", (ulong_t)status);
    }
    sign(0);
    must("C_Finalize", list->entries[FINALIZE](NULL));
    printf("%d loads, %d forks\n", loads, forks);
    return 0;
}
