/* libkeyserver_client: signatures and decryptions by a key server.
 *
 * Written by cbindgen from client-lib/capi/src; do not edit. The README there has an example and the
 * rules of ownership. In short: what a function writes to is the caller's, and the only thing to be
 * freed is a client, by keyserver_client_free.
 */

#ifndef KEYSERVER_CLIENT_H
#define KEYSERVER_CLIENT_H

#include <stddef.h>
#include <stdint.h>

/*
 Most bytes of a result: what an RSA key of 8192 bits gives.
 */
#define KEYSERVER_OUTPUT_MAX 1024

/*
 Bytes of a key's name: its subject key identifier (RFC 5280, section 4.2.1.2, method 1).
 */
#define KEYSERVER_SKI_BYTES 20

/*
 What became of a call.
 */
typedef enum KeyserverStatus {
  /*
   It succeeded.
   */
  KEYSERVER_STATUS_OK = 0,
  /*
   A null pointer, an input of the wrong length, a buffer that is too small: the caller's mistake.
   */
  KEYSERVER_STATUS_ARGUMENT = 1,
  /*
   An address, a name, a certificate or a key that cannot be used.
   */
  KEYSERVER_STATUS_CONFIGURATION = 2,
  /*
   No server can be reached, or the connection was lost.
   */
  KEYSERVER_STATUS_NETWORK = 3,
  /*
   The two sides do not accept each other's certificates or versions of TLS.
   */
  KEYSERVER_STATUS_TLS = 4,
  /*
   What answers does not speak the protocol.
   */
  KEYSERVER_STATUS_PROTOCOL = 5,
  /*
   The server has no such key, does not grant its use, or it does not fit. Do not ask again.
   */
  KEYSERVER_STATUS_REFUSED = 6,
  /*
   The server has more work than it can do. Ask later.
   */
  KEYSERVER_STATUS_BUSY = 7,
  /*
   No answer came within the deadline.
   */
  KEYSERVER_STATUS_DEADLINE = 8,
  /*
   As many calls are on their way, or wait to be taken, as the client may hold.
   */
  KEYSERVER_STATUS_OVERLOADED = 9,
  /*
   The client was freed, or belongs to the parent of this process.
   */
  KEYSERVER_STATUS_CLOSED = 10,
  /*
   A fault of this library, which caught it.
   */
  KEYSERVER_STATUS_INTERNAL = 11,
} KeyserverStatus;

/*
 How to sign. All but Ed25519 take the hash of the message; Ed25519 takes the message.
 */
typedef enum KeyserverAlgorithm {
  KEYSERVER_ALGORITHM_RSA_PKCS1_MD5_SHA1 = 2,
  KEYSERVER_ALGORITHM_RSA_PKCS1_SHA1 = 3,
  KEYSERVER_ALGORITHM_RSA_PKCS1_SHA256 = 5,
  KEYSERVER_ALGORITHM_RSA_PKCS1_SHA384 = 6,
  KEYSERVER_ALGORITHM_RSA_PKCS1_SHA512 = 7,
  KEYSERVER_ALGORITHM_ECDSA_SHA1 = 19,
  KEYSERVER_ALGORITHM_ECDSA_SHA256 = 21,
  KEYSERVER_ALGORITHM_ECDSA_SHA384 = 22,
  KEYSERVER_ALGORITHM_ECDSA_SHA512 = 23,
  KEYSERVER_ALGORITHM_ED25519 = 24,
  KEYSERVER_ALGORITHM_RSA_PSS_SHA256 = 53,
  KEYSERVER_ALGORITHM_RSA_PSS_SHA384 = 54,
  KEYSERVER_ALGORITHM_RSA_PSS_SHA512 = 55,
} KeyserverAlgorithm;

/*
 Connections to the servers, and the calls over them.
 */
typedef struct KeyserverClient KeyserverClient;

/*
 How to reach the servers. Everything it points to may be freed after keyserver_client_new.
 */
typedef struct KeyserverOptions {
  /*
   `host:port` each; all hold the same keys.
   */
  const char *const *servers;
  /*
   How many.
   */
  uintptr_t server_count;
  /*
   The name in the servers' certificates.
   */
  const char *server_name;
  /*
   A PEM file: who signs the servers' certificates.
   */
  const char *ca_file;
  /*
   A PEM file: this client's certificate and its chain.
   */
  const char *certificate_file;
  /*
   A PEM file: the private key of that certificate.
   */
  const char *private_key_file;
  /*
   How long a call may take, in milliseconds; 0 for 2000.
   */
  uint32_t deadline_ms;
} KeyserverOptions;

/*
 The outcome of a submitted call.
 */
typedef struct KeyserverCompletion {
  /*
   What was given when the call was submitted.
   */
  void *user;
  /*
   What became of it.
   */
  enum KeyserverStatus status;
  /*
   Bytes of the result; 0 unless it succeeded.
   */
  uintptr_t output_length;
  /*
   The result: `k` bytes for RSA, DER for ECDSA, 64 bytes for Ed25519.
   */
  uint8_t output[KEYSERVER_OUTPUT_MAX];
} KeyserverCompletion;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Makes a client. Nothing is connected, and no thread started, before the first call.

 On success `*client` is a client to be freed by keyserver_client_free; otherwise it is null.

 # Safety

 As the module says.
 */
enum KeyserverStatus keyserver_client_new(const struct KeyserverOptions *options,
                                          struct KeyserverClient **client);

/*
 Closes a client's connections and frees it; null is allowed. No other thread may be in a call of
 it. Calls that were submitted and not taken are forgotten.

 # Safety

 As the module says.
 */
void keyserver_client_free(struct KeyserverClient *client);

/*
 Computes the name of the key of a certificate, PEM or DER: 20 bytes to `ski`.

 # Safety

 As the module says.
 */
enum KeyserverStatus keyserver_ski_of_certificate(const uint8_t *certificate,
                                                  uintptr_t length,
                                                  uint8_t *ski);

/*
 Signs, and waits for the signature at most until the deadline.

 `algorithm` is a KeyserverAlgorithm. `*output_length` is the size of `output` before, and that of
 the signature after; KEYSERVER_OUTPUT_MAX bytes are always enough.

 # Safety

 As the module says.
 */
enum KeyserverStatus keyserver_sign(const struct KeyserverClient *client,
                                    const uint8_t *ski,
                                    uint32_t algorithm,
                                    const uint8_t *input,
                                    uintptr_t input_length,
                                    uint8_t *output,
                                    uintptr_t *output_length);

/*
 RSA-decrypts, and waits as keyserver_sign does. The result is the whole block with its padding
 still on; taking it off without telling an attacker whether it was right is the caller's duty.

 # Safety

 As the module says.
 */
enum KeyserverStatus keyserver_decrypt(const struct KeyserverClient *client,
                                       const uint8_t *ski,
                                       const uint8_t *ciphertext,
                                       uintptr_t ciphertext_length,
                                       uint8_t *output,
                                       uintptr_t *output_length);

/*
 The descriptor that is readable when keyserver_completions has something to give. It is the
 client's: watch it, and do not read or close it. -1 for a null client.

 # Safety

 As the module says.
 */
int keyserver_descriptor(const struct KeyserverClient *client);

/*
 Begins a signature and returns at once. Its completion carries `user`. Unless this returns OK,
 nothing was begun and no completion comes. The input is copied.

 # Safety

 As the module says.
 */
enum KeyserverStatus keyserver_submit_sign(const struct KeyserverClient *client,
                                           const uint8_t *ski,
                                           uint32_t algorithm,
                                           const uint8_t *input,
                                           uintptr_t input_length,
                                           void *user);

/*
 Begins a decryption, as keyserver_submit_sign does a signature.

 # Safety

 As the module says.
 */
enum KeyserverStatus keyserver_submit_decrypt(const struct KeyserverClient *client,
                                              const uint8_t *ski,
                                              const uint8_t *ciphertext,
                                              uintptr_t ciphertext_length,
                                              void *user);

/*
 Takes up to `most` completions, in the order in which they came. Returns how many were written.
 Never waits. In a child of the process that made the client it takes nothing.

 # Safety

 As the module says.
 */
uintptr_t keyserver_completions(const struct KeyserverClient *client,
                                struct KeyserverCompletion *list,
                                uintptr_t most);

/*
 Writes why the last call of this thread failed, ended by a zero byte and cut to `size`. Returns
 how many bytes the whole has, without the zero.

 # Safety

 As the module says.
 */
uintptr_t keyserver_last_error(char *buffer, uintptr_t size);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* KEYSERVER_CLIENT_H */
