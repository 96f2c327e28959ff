/* What all of ZMTP shares: numbers in network order, limits, faults.
 *
 * ZMTP 3.1: https://rfc.zeromq.org/spec/37/. Nothing here waits, reads the clock or
 * makes a system call: octets and times are handed in, octets to send come out.
 * Functions return 0 or a count, or -errno: EPROTO for what breaks the protocol,
 * EMSGSIZE for what is larger than allowed, EACCES where the peer refuses us.
 */
#ifndef AZS_ZMTP_WIRE_H
#define AZS_ZMTP_WIRE_H

#include <errno.h>
#include <string.h>

#include "base/common.h"

enum {
    /* Of a handshake command: far beyond what any peer sends in its metadata. */
    AZS_ZMTP_HANDSHAKE_MAX = 64 * 1024,
    AZS_ZMTP_IDENTITY_MAX = 255,
};

/* Why a handshake failed: the values of libzmq's events (zmq.h,
 * ZMQ_PROTOCOL_ERROR_*), which applications know from its monitor. */
typedef enum {
    AZS_ZMTP_NO_FAULT = 0,
    AZS_ZMTP_FAULT_ZMTP = 0x10000000,
    AZS_ZMTP_FAULT_UNEXPECTED_COMMAND = 0x10000001,
    AZS_ZMTP_FAULT_SEQUENCE = 0x10000002,
    AZS_ZMTP_FAULT_KEY_EXCHANGE = 0x10000003,
    AZS_ZMTP_FAULT_COMMAND = 0x10000011,
    AZS_ZMTP_FAULT_MESSAGE = 0x10000012,
    AZS_ZMTP_FAULT_HELLO = 0x10000013,
    AZS_ZMTP_FAULT_INITIATE = 0x10000014,
    AZS_ZMTP_FAULT_ERROR = 0x10000015,
    AZS_ZMTP_FAULT_READY = 0x10000016,
    AZS_ZMTP_FAULT_WELCOME = 0x10000017,
    AZS_ZMTP_FAULT_METADATA = 0x10000018,
    AZS_ZMTP_FAULT_CRYPTOGRAPHIC = 0x11000001,
    AZS_ZMTP_FAULT_MECHANISM = 0x11000002,
} azs_zmtp_fault;

static inline uint16_t
azs_zmtp_get_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t
azs_zmtp_get_u32(const uint8_t *p)
{
    return (uint32_t)azs_zmtp_get_u16(p) << 16 | azs_zmtp_get_u16(p + 2);
}

static inline uint64_t
azs_zmtp_get_u64(const uint8_t *p)
{
    return (uint64_t)azs_zmtp_get_u32(p) << 32 | azs_zmtp_get_u32(p + 4);
}

static inline void
azs_zmtp_put_u16(uint8_t *p, uint16_t n)
{
    p[0] = (uint8_t)(n >> 8);
    p[1] = (uint8_t)n;
}

static inline void
azs_zmtp_put_u32(uint8_t *p, uint32_t n)
{
    azs_zmtp_put_u16(p, (uint16_t)(n >> 16));
    azs_zmtp_put_u16(p + 2, (uint16_t)n);
}

static inline void
azs_zmtp_put_u64(uint8_t *p, uint64_t n)
{
    azs_zmtp_put_u32(p, (uint32_t)(n >> 32));
    azs_zmtp_put_u32(p + 4, (uint32_t)n);
}

/* memcpy() whose pointers may be NULL where there is nothing to copy. */
static inline void
azs_zmtp_copy(void *to, const void *from, size_t size)
{
    if (size > 0)
        memcpy(to, from, size);
}

#endif
