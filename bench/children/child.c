/* The supervised program, the same for all: at its first instruction it says when that was, then it waits for ever.
   Word: the FIFO to say it in. With a socket from its supervisor it accepts and closes, as probes need it. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t said[2] = {getpid(), now.tv_sec * INT64_C(1000000000) + now.tv_nsec};
    int fifo = argc > 1 ? open(argv[1], O_WRONLY | O_CLOEXEC) : -1;
    if (fifo < 0 || write(fifo, said, sizeof said) != sizeof said)
        return 1;
    close(fifo);
    while (getenv("LISTEN_FDS")) {
        int guest = accept(3, 0, 0);
        if (guest >= 0)
            close(guest);
        else if (errno != EINTR && errno != ECONNABORTED)
            break;
    }
    for (;;)
        pause();
}
