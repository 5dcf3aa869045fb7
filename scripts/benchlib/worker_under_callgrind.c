/* Preloaded into pgfleet's supervisor, makes it start its workers under callgrind.
 *
 * The supervisor executes /proc/self/exe, which valgrind cannot follow from outside: under valgrind that name is valgrind itself.
 * CALLGRIND_OUT names the output file, CALLGRIND_BINARY is pgfleet.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int execvp(const char *file, char *const arguments[])
{
    int (*real)(const char *, char *const[]) = (int (*)(const char *, char *const[]))dlsym(RTLD_NEXT, "execvp");

    if (strcmp(file, "/proc/self/exe") != 0)
        return real(file, arguments);
    unsetenv("LD_PRELOAD");
    return execl("/usr/bin/valgrind", "valgrind", "--tool=callgrind", getenv("CALLGRIND_OUT"), getenv("CALLGRIND_BINARY"), arguments[1], NULL);
}
