/* The launcher's own process: small and single-threaded, it forks where the agent, large and threaded, must not.
 *
 *     forker        with its end of a socket (SOCK_SEQPACKET) as fd 3, and /dev/null as fd 0
 *
 * Each message asks for one process (`agent/linux/launcher.py` is at the other end): numbers, then words, and with them
 * the private channel of that launch, then the streams and sockets that the process is to have. It is made by clone3(2)
 * as a child of the agent and not of ours (CLONE_PARENT), inside of its cgroup from its first moment on
 * (CLONE_INTO_CGROUP): to be moved there later takes the kernel milliseconds. Its number and start time are answered
 * over the channel. The child makes itself ready, waits there for the agent's word, and executes the command: one pid
 * from the first to the last, and a command finds what `agent/linux/spawn.py` would give it.
 *
 * Rules: what is asked for is understood to its last byte, or answered with EBADMSG and nothing is started. An agent
 * that is gone is the end of us, and of whoever still waits for its word. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    ASKED = 3,
    MESSAGE_BYTES_MAX = 1 << 16,
    FDS_MAX = 64,
    PATHS = 3,   /* words before the command's: cgroup, folder, terminal; empty: none */
    STREAMS = 2, /* output and error */
    STAT_BYTES_MAX = 1024,
    STAT_START_TIME = 20, /* fields of /proc/PID/stat behind the name up to it */
    DIGITS_MAX = 20,
};

/* Exit codes of a child that could not become its command, as those of a shell and of `agent/linux/spawn.py`. */
enum { FAILED = 125, CANNOT_RUN = 126, NOT_FOUND = 127 };

enum { IDENTITY = 1 << 0, NO_NEW_PRIVS = 1 << 1, INPUT = 1 << 2, ALL_FLAGS = (1 << 3) - 1 };

static const char GO = 'g';
static const char LISTEN_PID[] = "LISTEN_PID=";

/* How a message begins; `groups` numbers of groups follow, then the words, each with its NUL. */
struct numbers {
    uint32_t flags, umask, uid, gid, groups, arguments, variables;
};

struct answer {
    int64_t pid; /* or -errno */
    uint64_t start_time;
};

/* What is asked for; it points into what was received. */
struct request {
    struct numbers is;
    const gid_t *groups;
    const char *cgroup, *folder, *terminal;
    char **argv, **environment, **environment_end;
};

struct received {
    size_t size;
    int fds[FDS_MAX];
    size_t fd_count;
    int error; /* of one that did not come whole */
};

/* The last message, and where its words are: at most one a byte, a NULL behind each list, and LISTEN_PID. */
static union {
    uint32_t numbers[MESSAGE_BYTES_MAX / sizeof(uint32_t)];
    char bytes[MESSAGE_BYTES_MAX];
} message;
static char *words[MESSAGE_BYTES_MAX + 3];

_Static_assert(sizeof(gid_t) == sizeof(uint32_t), "groups are taken as they came");

/* Say on stderr what cannot be done, and why. */
static void say(const char *what, int error) {
    const char *why = strerrordesc_np(error);
    const char *parts[] = {"rollway-launch: ", what, ": ", why != NULL ? why : "unknown error", "\n"};
    struct iovec line[sizeof parts / sizeof *parts];
    for (size_t part = 0; part < sizeof parts / sizeof *parts; part++)
        line[part] = (struct iovec){.iov_base = (void *)parts[part], .iov_len = strlen(parts[part])};
    (void)!writev(STDERR_FILENO, line, sizeof parts / sizeof *parts); /* who does not hear it has the exit code */
}

static _Noreturn void fail(int code, const char *what) {
    say(what, errno);
    _exit(code);
}

/* Write the number in decimal, with a NUL; `text` has room for DIGITS_MAX and that. Where it ends. */
static char *write_decimal(uint64_t number, char *text) {
    char digits[DIGITS_MAX];
    size_t count = 0;
    do digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    while (count > 0) *text++ = digits[--count];
    *text = '\0';
    return text;
}

/* Note `count` words from `*at` on in `list`, which gets a NULL behind them; false where there are not as many. */
static bool take_words(char **at, const char *end, uint32_t count, char **list) {
    for (; count > 0; count--) {
        char *nul = memchr(*at, '\0', (size_t)(end - *at));
        if (nul == NULL) return false;
        *list++ = *at;
        *at = nul + 1;
    }
    *list = NULL;
    return true;
}

/* Understand the message; false where it is anything but what it says it is. */
static bool parse(const struct received *received, struct request *request) {
    struct numbers *is = &request->is;
    char *at = message.bytes + sizeof *is, *end = message.bytes + received->size, *paths[PATHS + 1];
    if (received->size < sizeof *is) return false;
    memcpy(is, message.bytes, sizeof *is);
    size_t fds_min = 1 + STREAMS + ((is->flags & INPUT) != 0), rest = received->size - sizeof *is;
    if ((is->flags & ~(uint32_t)ALL_FLAGS) != 0 || received->fd_count < fds_min) return false;
    if (is->groups > rest / sizeof(gid_t) || is->arguments == 0) return false;
    request->groups = message.numbers + sizeof *is / sizeof(uint32_t);
    at += is->groups * sizeof(gid_t);
    if (!take_words(&at, end, PATHS, paths)) return false;
    request->cgroup = paths[0], request->folder = paths[1], request->terminal = paths[2];
    request->argv = words;
    if (!take_words(&at, end, is->arguments, request->argv)) return false;
    request->environment = request->argv + is->arguments + 1;
    if (!take_words(&at, end, is->variables, request->environment) || at != end) return false;
    request->environment_end = request->environment + is->variables;
    return true;
}

/* The next message; nothing where nobody can ask any more. */
static struct received receive(void) {
    union {
        struct cmsghdr first;
        char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
    } beside;
    struct iovec whole = {.iov_base = message.bytes, .iov_len = sizeof message.bytes};
    struct msghdr header = {
        .msg_iov = &whole, .msg_iovlen = 1, .msg_control = beside.bytes, .msg_controllen = sizeof beside.bytes};
    struct received received = {0};
    ssize_t size = recvmsg(ASKED, &header, MSG_CMSG_CLOEXEC);
    if (size < 0) fail(FAILED, "cannot be asked"); /* the launcher starts another */
    received.size = (size_t)size;
    if (header.msg_flags & MSG_TRUNC) received.error = EMSGSIZE;
    if (header.msg_flags & MSG_CTRUNC) received.error = EMFILE;
    const struct cmsghdr *rights = CMSG_FIRSTHDR(&header); /* all descriptors come in one */
    if (rights != NULL && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
        size_t bytes = rights->cmsg_len - CMSG_LEN(0);
        memcpy(received.fds, CMSG_DATA(rights), bytes);
        received.fd_count = bytes / sizeof(int);
    }
    return received;
}

/* The number of a new child of the agent, 0 in it, or -errno. */
static int64_t clone_sibling(const char *cgroup) {
    struct clone_args arguments = {.flags = CLONE_PARENT};
    int leaf = -1;
    if (*cgroup != '\0') {
        leaf = open(cgroup, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (leaf < 0) return -errno;
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = (unsigned int)leaf;
    }
    int64_t pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid < 0) pid = -errno;
    if (leaf >= 0) (void)close(leaf);
    return pid;
}

/* As /proc has it; 0 of one that is gone. */
static uint64_t start_time(int64_t pid) {
    char path[sizeof "/proc/" + DIGITS_MAX + sizeof "/stat"] = "/proc/", text[STAT_BYTES_MAX];
    (void)strcpy(write_decimal((uint64_t)pid, path + strlen(path)), "/stat");
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t size = read(file, text, sizeof text - 1);
    (void)close(file);
    if (size <= 0) return 0;
    text[size] = '\0';
    const char *at = strrchr(text, ')'); /* the name before may hold spaces and parentheses */
    for (int field = 0; at != NULL && field < STAT_START_TIME; field++) at = strchr(at + 1, ' ');
    return at != NULL ? strtoull(at + 1, NULL, 10) : 0;
}

/* A descriptor that no number below `above` is to be put on. */
static int lifted(int fd, int above) {
    int copy = fd < above ? fcntl(fd, F_DUPFD_CLOEXEC, above) : fd;
    if (copy < 0) fail(FAILED, "cannot have its descriptors");
    return copy;
}

/* Put what came with the message on 0 or 1 and the numbers that follow. The channel, wherever it is now. */
static int place(const struct received *received, bool has_input) {
    int fds[FDS_MAX], first = has_input ? STDIN_FILENO : STDOUT_FILENO, above = first + (int)received->fd_count - 1;
    for (size_t at = 0; at < received->fd_count; at++) fds[at] = lifted(received->fds[at], above);
    for (int target = first; target < above; target++)
        if (dup2(fds[1 + target - first], target) < 0) fail(FAILED, "cannot have its descriptors");
    return fds[0];
}

static void take_identity(const struct request *request) {
    const struct numbers *is = &request->is;
    if (setgroups(is->groups, request->groups) != 0) fail(FAILED, "cannot have its groups");
    if (setresgid(is->gid, is->gid, is->gid) != 0) fail(FAILED, "cannot be of its group");
    if (setresuid(is->uid, is->uid, is->uid) != 0) fail(FAILED, "cannot be its user");
}

/* Be the command that is asked for, once the agent says so. */
static _Noreturn void become(const struct request *request, const struct received *received) {
    char listen_pid[sizeof LISTEN_PID + DIGITS_MAX], word;
    sigset_t none;
    bool has_input = (request->is.flags & INPUT) != 0;
    (void)close(ASKED); /* else it would hide from the agent that we are gone */
    (void)setsid();     /* a new process leads no group: it cannot fail */
    int channel = place(received, has_input);
    if (*request->terminal != '\0') { /* the one that a session's leader opens first is its own */
        int terminal = open(request->terminal, O_RDWR | O_CLOEXEC);
        if (terminal < 0 || dup2(terminal, STDIN_FILENO) < 0) fail(FAILED, request->terminal);
    }
    (void)umask((mode_t)request->is.umask);
    if (chdir(request->folder) != 0) fail(FAILED, request->folder);
    if (received->fd_count > 1 + STREAMS + (size_t)has_input) {
        (void)write_decimal((uint64_t)getpid(), stpcpy(listen_pid, LISTEN_PID));
        request->environment_end[0] = listen_pid;
        request->environment_end[1] = NULL;
    }
    if (read(channel, &word, sizeof word) != sizeof word || word != GO) _exit(FAILED); /* the agent wants it no more */
    /* Not before: the agent sets its limits first, and may not without CAP_SYS_RESOURCE once it is another user. */
    if (request->is.flags & IDENTITY) take_identity(request);
    if ((request->is.flags & NO_NEW_PRIVS) && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        fail(FAILED, "cannot give up new privileges");
    /* What was sent to it meanwhile is taken now. */
    if (sigemptyset(&none) != 0 || sigprocmask(SIG_SETMASK, &none, NULL) != 0) fail(FAILED, "cannot take signals");
    (void)execve(request->argv[0], request->argv, request->environment);
    fail(errno == ENOENT ? NOT_FOUND : CANNOT_RUN, request->argv[0]);
}

/* Do what one message asks for. */
static void serve(const struct received *received) {
    struct answer answer = {.pid = -received->error};
    struct request request;
    if (received->error == 0 && !parse(received, &request)) {
        answer.pid = -EBADMSG;
    } else if (received->error == 0) {
        answer.pid = clone_sibling(request.cgroup);
        if (answer.pid == 0) become(&request, received);
        if (answer.pid > 0) answer.start_time = start_time(answer.pid);
    }
    if (received->fd_count > 0) /* nobody may wait for it any more: its child meets the end of the channel */
        (void)send(received->fds[0], &answer, sizeof answer, MSG_NOSIGNAL | MSG_DONTWAIT);
    for (size_t at = 0; at < received->fd_count; at++) (void)close(received->fds[at]);
}

/* Have nothing of an agent that a command is not to have: a score against the want of memory, capabilities. */
static void shed(void) {
    char score[DIGITS_MAX];
    int file = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    if (file >= 0) { /* else it is not ours to change: nor was it changed for us */
        if (read(file, score, sizeof score) > 0 && score[0] == '-') (void)!pwrite(file, "0", 1, 0);
        (void)close(file);
    }
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); /* fails where a kernel has none */
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
    if (syscall(SYS_capget, &header, data) != 0) fail(FAILED, "cannot see its capabilities");
    for (size_t half = 0; half < _LINUX_CAPABILITY_U32S_3; half++) data[half].inheritable = 0;
    if (syscall(SYS_capset, &header, data) != 0) fail(FAILED, "cannot give up capabilities");
}

int main(void) {
    sigset_t all;
    if (sigfillset(&all) != 0 || sigprocmask(SIG_BLOCK, &all, NULL) != 0) fail(FAILED, "cannot block signals");
    if (fcntl(ASKED, F_SETFD, FD_CLOEXEC) != 0) fail(FAILED, "has no socket");
    (void)close_range(ASKED + 1, ~0U, 0); /* nobody's but of an agent that was careless; Linux 5.9 */
    shed();
    for (;;) {
        struct received received = receive(); /* the agent is who ends us, by being gone */
        if (received.size == 0 && received.fd_count == 0) return 0;
        serve(&received);
    }
}
