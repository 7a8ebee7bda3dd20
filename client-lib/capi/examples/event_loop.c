/* Many signatures from one thread that never waits for any: an event loop with epoll.
 *
 *     cc event_loop.c $(pkg-config --cflags --libs keyserver-client) -o event_loop
 *     ./event_loop keys:2407 keys ca.pem edge.pem edge-key.pem shop.pem 1000
 *
 * A proxy would have its clients' sockets in the same epoll set, and in `struct handshake` what it needs
 * to go on with one when its signature is there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "keyserver_client.h"

#define IN_FLIGHT 64
#define TAKEN_AT_ONCE 16

struct handshake {
    uint8_t hash[32];
    KeyserverStatus status;
    size_t signature_length;
};

static int failed(const char *what, KeyserverStatus status)
{
    char why[512];
    keyserver_last_error(why, sizeof why);
    fprintf(stderr, "%s: status %d: %s\n", what, (int)status, why);
    return 1;
}

static int read_ski(const char *path, uint8_t *ski)
{
    unsigned char pem[16384];
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        return 1;
    }
    size_t length = fread(pem, 1, sizeof pem, file);
    fclose(file);
    KeyserverStatus status = keyserver_ski_of_certificate(pem, length, ski);
    return status == KEYSERVER_STATUS_OK ? 0 : failed(path, status);
}

static int run(KeyserverClient *client, const uint8_t *ski, struct handshake *all, size_t count)
{
    /* The library writes here; 1 KiB each, so not on a small stack. */
    KeyserverCompletion *ready = calloc(TAKEN_AT_ONCE, sizeof *ready);
    int set = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
    if (ready == NULL || set < 0
        || epoll_ctl(set, EPOLL_CTL_ADD, keyserver_descriptor(client), &event) != 0) {
        perror("epoll");
        return 1;
    }

    size_t begun = 0, done = 0, good = 0;
    while (done < count) {
        while (begun < count && begun - done < IN_FLIGHT) {
            struct handshake *next = &all[begun];
            KeyserverStatus status =
                keyserver_submit_sign(client, ski, KEYSERVER_ALGORITHM_ECDSA_SHA256, next->hash,
                                      sizeof next->hash, next);
            if (status != KEYSERVER_STATUS_OK)
                return failed("keyserver_submit_sign", status);
            begun++;
        }
        if (epoll_wait(set, &event, 1, -1) < 0) {
            perror("epoll_wait");
            return 1;
        }
        size_t taken = keyserver_completions(client, ready, TAKEN_AT_ONCE);
        for (size_t i = 0; i < taken; i++) {
            struct handshake *finished = ready[i].user;
            finished->status = ready[i].status;
            finished->signature_length = ready[i].output_length;
            good += ready[i].status == KEYSERVER_STATUS_OK && ready[i].output_length > 60;
        }
        done += taken;
    }
    close(set);
    free(ready);
    printf("signed %zu of %zu\n", good, count);
    return good == count ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc != 8) {
        fprintf(stderr, "usage: %s SERVER NAME CA CERTIFICATE KEY SITE COUNT\n", argv[0]);
        return 2;
    }
    uint8_t ski[KEYSERVER_SKI_BYTES];
    if (read_ski(argv[6], ski) != 0)
        return 1;

    const char *servers[] = {argv[1]};
    KeyserverOptions options = {
        .servers = servers,
        .server_count = 1,
        .server_name = argv[2],
        .ca_file = argv[3],
        .certificate_file = argv[4],
        .private_key_file = argv[5],
        .deadline_ms = 30000,
    };
    KeyserverClient *client;
    KeyserverStatus status = keyserver_client_new(&options, &client);
    if (status != KEYSERVER_STATUS_OK)
        return failed("keyserver_client_new", status);

    size_t count = strtoul(argv[7], NULL, 10);
    struct handshake *all = calloc(count, sizeof *all);
    if (all == NULL)
        return 1;
    for (size_t i = 0; i < count; i++)
        memset(all[i].hash, (int)i, sizeof all[i].hash);
    int outcome = run(client, ski, all, count);
    keyserver_client_free(client);
    free(all);
    return outcome;
}
