/* The functions of libsodium that CURVE needs, as a table: whoever has found a
 * libsodium in the process fills it in. There is no cryptography here.
 */
#ifndef AZS_ZMTP_CRYPTO_H
#define AZS_ZMTP_CRYPTO_H

#include "zmtp/wire.h"

enum {
    AZS_ZMTP_KEY_SIZE = 32,
    AZS_ZMTP_NONCE_SIZE = 24,
    AZS_ZMTP_MAC_SIZE = 16, /* a box is larger by this than what is in it */
};

/* X(field, symbol, result, arguments). What a box is made of and the box itself may
 * be at the same place; the `easy` functions put the MAC first. */
#define AZS_ZMTP_CRYPTO_FUNCTIONS(X)                                                   \
    X(init, "sodium_init", int, (void))                                                \
    X(keypair, "crypto_box_keypair", int, (uint8_t *pk, uint8_t *sk))                  \
    X(beforenm, "crypto_box_beforenm", int,                                            \
      (uint8_t *k, const uint8_t *pk, const uint8_t *sk))                              \
    X(box, "crypto_box_easy", int,                                                     \
      (uint8_t *c, const uint8_t *m, unsigned long long size, const uint8_t *n,        \
       const uint8_t *pk, const uint8_t *sk))                                          \
    X(box_open, "crypto_box_open_easy", int,                                           \
      (uint8_t *m, const uint8_t *c, unsigned long long size, const uint8_t *n,        \
       const uint8_t *pk, const uint8_t *sk))                                          \
    X(box_afternm, "crypto_box_easy_afternm", int,                                     \
      (uint8_t *c, const uint8_t *m, unsigned long long size, const uint8_t *n,        \
       const uint8_t *k))                                                              \
    X(box_open_afternm, "crypto_box_open_easy_afternm", int,                           \
      (uint8_t *m, const uint8_t *c, unsigned long long size, const uint8_t *n,        \
       const uint8_t *k))                                                              \
    X(secretbox, "crypto_secretbox_easy", int,                                         \
      (uint8_t *c, const uint8_t *m, unsigned long long size, const uint8_t *n,        \
       const uint8_t *k))                                                              \
    X(secretbox_open, "crypto_secretbox_open_easy", int,                               \
      (uint8_t *m, const uint8_t *c, unsigned long long size, const uint8_t *n,        \
       const uint8_t *k))                                                              \
    X(random, "randombytes_buf", void, (void *p, size_t size))                         \
    X(memzero, "sodium_memzero", void, (void *p, size_t size))                         \
    X(memcmp, "sodium_memcmp", int, (const void *a, const void *b, size_t size))

typedef struct {
#define X(field, symbol, result, args) result(*field) args;
    AZS_ZMTP_CRYPTO_FUNCTIONS(X)
#undef X
} azs_zmtp_crypto;

/* Initialises the library and has it open and seal what is known: 0, or -ENOSYS where
 * it gives anything else. To be called once for a table. */
int azs_zmtp_crypto_check(const azs_zmtp_crypto *crypto);

#endif
