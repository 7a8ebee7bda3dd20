/* One signature, waited for.
 *
 *     cc blocking.c $(pkg-config --cflags --libs keyserver-client) -o blocking
 *     ./blocking keys:2407 keys ca.pem edge.pem edge-key.pem shop.pem signature
 *
 * Signs 32 bytes of 0x11, as if they were the SHA-256 of something, with the key of shop.pem (P-256), and
 * writes the signature to a file.
 */
#include <stdio.h>
#include <string.h>

#include "keyserver_client.h"

static int failed(const char *what, KeyserverStatus status)
{
    char why[512];
    keyserver_last_error(why, sizeof why);
    fprintf(stderr, "%s: status %d: %s\n", what, (int)status, why);
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 8) {
        fprintf(stderr, "usage: %s SERVER NAME CA CERTIFICATE KEY SITE OUTPUT\n", argv[0]);
        return 2;
    }

    unsigned char pem[16384];
    FILE *file = fopen(argv[6], "rb");
    if (file == NULL) {
        perror(argv[6]);
        return 1;
    }
    size_t length = fread(pem, 1, sizeof pem, file);
    fclose(file);
    uint8_t ski[KEYSERVER_SKI_BYTES];
    KeyserverStatus status = keyserver_ski_of_certificate(pem, length, ski);
    if (status != KEYSERVER_STATUS_OK)
        return failed(argv[6], status);

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
    status = keyserver_client_new(&options, &client);
    if (status != KEYSERVER_STATUS_OK)
        return failed("keyserver_client_new", status);

    uint8_t hash[32];
    memset(hash, 0x11, sizeof hash);
    uint8_t signature[KEYSERVER_OUTPUT_MAX];
    length = sizeof signature;
    status = keyserver_sign(client, ski, KEYSERVER_ALGORITHM_ECDSA_SHA256, hash, sizeof hash,
                            signature, &length);
    keyserver_client_free(client);
    if (status != KEYSERVER_STATUS_OK)
        return failed("keyserver_sign", status);

    file = fopen(argv[7], "wb");
    if (file == NULL || fwrite(signature, 1, length, file) != length || fclose(file) != 0) {
        perror(argv[7]);
        return 1;
    }
    return 0;
}
