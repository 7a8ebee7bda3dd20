/* Calls every function of the C library with what no program should hand over: each must say so with a
 * status, and none may crash. The sizes and numbers that programs were compiled with are held to here.
 *
 * usage: misuse SERVER NAME CA CERTIFICATE KEY
 */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <keyserver_client.h>

/* What is in every program that was ever linked: a change here is a new major version. */
_Static_assert(KEYSERVER_STATUS_OK == 0 && KEYSERVER_STATUS_ARGUMENT == 1
                   && KEYSERVER_STATUS_INTERNAL == 11, "status numbers");
_Static_assert(KEYSERVER_SKI_BYTES == 20, "a key's name");
_Static_assert(offsetof(KeyserverOptions, servers) == 0, "options begin with the servers");

static int wrong;

static void is(const char *what, long got, long wanted)
{
    if (got != wanted) {
        char why[512];
        keyserver_last_error(why, sizeof why);
        fprintf(stderr, "%s: %ld, not %ld: %s\n", what, got, wanted, why);
        wrong++;
    }
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    KeyserverClient *client = (KeyserverClient *)1;
    is("no options", keyserver_client_new(NULL, &client), KEYSERVER_STATUS_ARGUMENT);
    is("the client is null", client == NULL, 1);
    const char *servers[] = {argv[1]};
    KeyserverOptions options = {
        .servers = servers,
        .server_count = 1,
        .server_name = argv[2],
        .ca_file = argv[3],
        .certificate_file = argv[4],
        .private_key_file = argv[5],
        .deadline_ms = 120000,
    };
    is("no place", keyserver_client_new(&options, NULL), KEYSERVER_STATUS_ARGUMENT);
    KeyserverOptions bad = options;
    bad.servers = NULL;
    is("no servers", keyserver_client_new(&bad, &client), KEYSERVER_STATUS_ARGUMENT);
    bad = options;
    bad.server_name = NULL;
    is("no name", keyserver_client_new(&bad, &client), KEYSERVER_STATUS_ARGUMENT);
    bad = options;
    bad.ca_file = "/nowhere/ca.pem";
    is("no such file", keyserver_client_new(&bad, &client), KEYSERVER_STATUS_CONFIGURATION);
    char why[512] = "";
    keyserver_last_error(why, sizeof why);
    is("the error names the file", strstr(why, "/nowhere/ca.pem") != NULL, 1);

    is("good options", keyserver_client_new(&options, &client), KEYSERVER_STATUS_OK);
    uint8_t ski[KEYSERVER_SKI_BYTES] = {9}, hash[32] = {7}, output[512];
    size_t length = sizeof output;
    KeyserverAlgorithm ecdsa = KEYSERVER_ALGORITHM_ECDSA_SHA256;
    is("no certificate", keyserver_ski_of_certificate(NULL, 10, ski), KEYSERVER_STATUS_ARGUMENT);
    is("what is no certificate", keyserver_ski_of_certificate(hash, sizeof hash, ski),
       KEYSERVER_STATUS_ARGUMENT);
    is("no client", keyserver_sign(NULL, ski, ecdsa, hash, sizeof hash, output, &length),
       KEYSERVER_STATUS_ARGUMENT);
    is("no key", keyserver_sign(client, NULL, ecdsa, hash, sizeof hash, output, &length),
       KEYSERVER_STATUS_ARGUMENT);
    is("no input", keyserver_sign(client, ski, ecdsa, NULL, sizeof hash, output, &length),
       KEYSERVER_STATUS_ARGUMENT);
    is("no algorithm", keyserver_sign(client, ski, 0x77, hash, sizeof hash, output, &length),
       KEYSERVER_STATUS_ARGUMENT);
    is("a hash cut short", keyserver_sign(client, ski, ecdsa, hash, 31, output, &length),
       KEYSERVER_STATUS_ARGUMENT);
    is("no length", keyserver_sign(client, ski, ecdsa, hash, sizeof hash, output, NULL),
       KEYSERVER_STATUS_ARGUMENT);
    is("a key that nobody has", keyserver_sign(client, ski, ecdsa, hash, sizeof hash, output, &length),
       KEYSERVER_STATUS_REFUSED);
    is("nothing to decrypt", keyserver_decrypt(client, ski, NULL, 256, output, &length),
       KEYSERVER_STATUS_ARGUMENT);
    is("no client's descriptor", keyserver_descriptor(NULL), -1);
    is("a submission for no client", keyserver_submit_sign(NULL, ski, ecdsa, hash, sizeof hash, NULL),
       KEYSERVER_STATUS_ARGUMENT);
    is("a submission of nothing", keyserver_submit_decrypt(client, ski, NULL, 256, NULL),
       KEYSERVER_STATUS_ARGUMENT);
    is("completions of no client", (long)keyserver_completions(NULL, NULL, 4), 0);
    is("completions to nowhere", (long)keyserver_completions(client, NULL, 4), 0);
    keyserver_last_error(NULL, 0);
    keyserver_client_free(NULL);
    keyserver_client_free(client);
    if (wrong == 0)
        puts("every misuse was refused");
    return wrong;
}
