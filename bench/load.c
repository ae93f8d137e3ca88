// An HTTPS load client over mutual TLS 1.3. Without RATE it is a closed loop: each connection sends its
// next request when the answer to the last one is whole. With RATE (requests a second, over all
// connections) each request is due at a fixed moment and its latency counts from then, also when it had to
// wait for a free connection. One thread, epoll, so that it costs the machine little.
//
//   load PORT CONNECTIONS SECONDS CERTIFICATE KEY AUTHORITY REQUEST [RATE]
//
// CERTIFICATE to REQUEST are files (PEM, PEM, PEM, and the bytes of one whole HTTP request);
// /proc/self/fd/N is a file too, so that no key needs a disk. The server is on 127.0.0.1 and is
// verified against AUTHORITY. Standard output gets one line of JSON:
//
//   requests, errors, seconds, rps, p50_ms, p99_ms, max_ms, cpu_share (this program's, of one core)
//
// A run of `#` in REQUEST stands for a number, written with as many digits, that is one more with each request
// and begins again at its largest: so each may be for another secret.
//
// An error is an answer other than 200, or a connection that ended. Exit status 1: it could not start.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 4096, MAX_REQUEST = 1 << 20, ANSWER_BYTES = 64 * 1024 };
// Latencies are counted in steps of 1 microsecond up to 1 s; what is slower counts as 1 s.
enum { STEPS = 1000000 };

typedef struct {
    SSL *ssl;
    int fd;
    double sent_at;
    size_t have;        // bytes of the answer in `answer`
    size_t missing;     // bytes of a long body still to come, not stored
    char answer[ANSWER_BYTES + 1];
} Connection;

static Connection *connections;
static char request[MAX_REQUEST];
static size_t request_bytes;
static char *number;        // in the request: where the number stands, and how many digits it has
static int digits;
static long turn, turns = 1;
static uint32_t steps[STEPS + 1];
static long requests, errors;
static double slowest;
static Connection **idle;  // with a rate: connections that wait for a request to be due
static int idle_count;
static double rate, due;   // requests a second, 0 for a closed loop; when the next one is due

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void die(const char *what) {
    fprintf(stderr, "load: %s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static size_t read_file(const char *path, char *into, size_t limit) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    size_t count = fread(into, 1, limit, file);
    fclose(file);
    return count;
}

static SSL_CTX *make_context(const char *certificate, const char *key, const char *authority) {
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) ||
        SSL_CTX_use_certificate_chain_file(context, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_load_verify_locations(context, authority, NULL) != 1)
        die("certificate, key or authority");
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_read_ahead(context, 1);  // one read from the socket for each record, not two
    return context;
}

// Connects and shakes hands, blocking; from then on the socket does not block.
static int dial(Connection *c, SSL_CTX *context, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address)) return 0;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->ssl = SSL_new(context);
    SSL_set_fd(c->ssl, c->fd);
    if (SSL_connect(c->ssl) != 1) return 0;
    fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK);
    c->have = c->missing = 0;
    return 1;
}

static void count_up(void) {
    turn = (turn + 1) % turns;
    long rest = turn;
    for (int at = digits - 1; at >= 0; at--, rest /= 10) number[at] = (char)('0' + rest % 10);
}

static int send_request(Connection *c) {
    count_up();
    c->have = c->missing = 0;
    c->sent_at = rate > 0 ? due : now();
    size_t done = 0;
    while (done < request_bytes) {
        int sent = SSL_write(c->ssl, request + done, (int)(request_bytes - done));
        if (sent > 0) {
            done += (size_t)sent;
        } else if (SSL_get_error(c->ssl, sent) != SSL_ERROR_WANT_WRITE) {
            return 0;  // requests are small: waiting for room in the kernel's buffer is rare
        }
    }
    return 1;
}

static void count_answer(Connection *c) {
    double took = now() - c->sent_at;
    long step = (long)(took * 1e6);
    steps[step > STEPS ? STEPS : step]++;
    if (took > slowest) slowest = took;
    requests++;
}

// Returns 1 when an answer is whole, 0 when more must come, -1 when the connection is of no use.
static int take_answer(Connection *c) {
    for (;;) {
        char *into = c->missing ? c->answer : c->answer + c->have;
        size_t room = c->missing ? ANSWER_BYTES : ANSWER_BYTES - c->have;
        int got = SSL_read(c->ssl, into, (int)room);
        if (got <= 0) return SSL_get_error(c->ssl, got) == SSL_ERROR_WANT_READ ? 0 : -1;
        if (c->missing) {
            if ((size_t)got > c->missing) return -1;
            c->missing -= (size_t)got;
            if (!c->missing) return 1;
            continue;
        }
        c->have += (size_t)got;
        c->answer[c->have] = 0;
        char *end = strstr(c->answer, "\r\n\r\n");
        if (!end) {
            if (c->have == ANSWER_BYTES) return -1;
            continue;
        }
        *end = 0;
        if (strncmp(c->answer, "HTTP/1.1 200 ", 13) || strcasestr(c->answer, "\r\nconnection: close"))
            return -1;
        char *length = strcasestr(c->answer, "\r\ncontent-length:");
        size_t whole = (size_t)(end - c->answer) + 4 + (length ? strtoul(length + 17, NULL, 10) : 0);
        *end = '\r';
        if (c->have > whole) return -1;
        if (c->have == whole) return 1;
        c->missing = whole - c->have;
    }
}

// Sends every request that is due, as long as there are connections; returns 0 when one broke.
static int send_due(Connection **broken) {
    while (idle_count && due <= now()) {
        Connection *c = idle[--idle_count];
        int sent = send_request(c);
        due += 1 / rate;
        if (!sent) {
            *broken = c;
            return 0;
        }
    }
    return 1;
}

// Makes epoll wake up when the next request is due.
static void set_timer(int timer) {
    struct itimerspec when = {0};
    when.it_value.tv_sec = (time_t)due;
    when.it_value.tv_nsec = (long)((due - (double)when.it_value.tv_sec) * 1e9) + 1;
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void redial(Connection *c, SSL_CTX *context, int port, int events) {
    SSL_free(c->ssl);
    close(c->fd);  // which also takes it out of epoll
    if (!dial(c, context, port)) die("cannot connect again");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(events, EPOLL_CTL_ADD, c->fd, &event);
    if (rate > 0) idle[idle_count++] = c;
    else if (!send_request(c)) die("cannot send");
}

static double percentile(double share) {
    long wanted = (long)((double)requests * share), seen = 0;
    for (int step = 0; step <= STEPS; step++)
        if ((seen += steps[step]) > wanted) return step / 1e3;
    return 0;
}

int main(int count, char **value) {
    if (count != 8 && count != 9)
        die("usage: load PORT CONNECTIONS SECONDS CERTIFICATE KEY AUTHORITY REQUEST [RATE]");
    int port = atoi(value[1]), many = atoi(value[2]);
    double seconds = atof(value[3]);
    rate = count == 9 ? atof(value[8]) : 0;
    if (many < 1 || many > MAX_CONNECTIONS || seconds <= 0) die("connections or seconds");
    SSL_CTX *context = make_context(value[4], value[5], value[6]);
    request_bytes = read_file(value[7], request, sizeof request);
    request[request_bytes < sizeof request ? request_bytes : sizeof request - 1] = 0;
    number = strchr(request, '#');
    for (; number && number[digits] == '#' && digits < 9; digits++) turns *= 10;
    connections = calloc((size_t)many, sizeof *connections);
    idle = calloc((size_t)many, sizeof *idle);
    int events = epoll_create1(EPOLL_CLOEXEC);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (!connections || !idle || timer < 0 || events < 0 || !request_bytes) die("memory, epoll or an empty request");

    for (int i = 0; i < many; i++) {
        if (!dial(&connections[i], context, port)) die("cannot connect");
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &connections[i]};
        if (epoll_ctl(events, EPOLL_CTL_ADD, connections[i].fd, &event)) die("epoll");
    }
    struct rusage usage_before, usage;
    getrusage(RUSAGE_SELF, &usage_before);
    double started = due = now();
    struct epoll_event tick = {.events = EPOLLIN, .data.ptr = NULL};
    if (rate > 0 && epoll_ctl(events, EPOLL_CTL_ADD, timer, &tick)) die("epoll");
    for (int i = 0; i < many; i++) {
        if (rate > 0) idle[idle_count++] = &connections[i];
        else if (!send_request(&connections[i])) die("cannot send");
    }
    while (now() - started < seconds) {
        Connection *broken = NULL;
        while (rate > 0 && !send_due(&broken)) {
            errors++;
            redial(broken, context, port, events);
        }
        if (rate > 0) set_timer(timer);
        struct epoll_event ready[256];
        int found = epoll_wait(events, ready, 256, 100);
        for (int i = 0; i < found; i++) {
            Connection *c = ready[i].data.ptr;
            if (!c) {  // a request is due: it is sent at the top of the loop
                uint64_t expired;
                if (read(timer, &expired, sizeof expired) < 0 && errno != EAGAIN) die("timer");
                continue;
            }
            int state = take_answer(c);
            if (state == 0) continue;
            if (state == 1) count_answer(c);
            if (state == 1 && rate > 0) {
                idle[idle_count++] = c;
            } else if (state < 0 || !send_request(c)) {
                errors++;
                redial(c, context, port, events);
            }
        }
    }
    double took = now() - started;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)(usage.ru_utime.tv_sec - usage_before.ru_utime.tv_sec) +
                 (double)(usage.ru_stime.tv_sec - usage_before.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec - usage_before.ru_utime.tv_usec) * 1e-6 +
                 (double)(usage.ru_stime.tv_usec - usage_before.ru_stime.tv_usec) * 1e-6;
    printf("{\"requests\":%ld,\"errors\":%ld,\"seconds\":%.3f,\"rps\":%.0f,\"p50_ms\":%.3f,"
           "\"p99_ms\":%.3f,\"max_ms\":%.3f,\"cpu_share\":%.3f}\n",
           requests, errors, took, (double)requests / took, percentile(0.5), percentile(0.99),
           slowest * 1e3, cpu / took);
    return 0;
}
