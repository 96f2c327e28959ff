/* csrc/zmtp/command.h, metadata.h, greeting.h: nothing is read beyond its end, and what
 * is told lies in what was given. */
#include "zmtp/command.h"
#include "zmtp/greeting.h"
#include "zmtp/metadata.h"

#include "fuzz.h"

const char *const fuzz_seeds[] = {
    "06 05 5245414459 0b 536f636b65742d54797065 00000006 4445414c4552 "
    "08 4964656e74697479 00000005 636c692d31",
    "06 0b 536f636b65742d54797065 00000006 4445414c4552 03 582d61 00000001 62",
    "04 04 50494e47 000a 637478",
    "04 05 4552524f52 03 343030",
    "04 09 535542534352494245 746f706963",
    "00 01 78",
    "00 ff 00*7 01 7f 0301 4e554c4c 00*48",
    NULL,
};

static void
check_inside(const uint8_t *part, size_t part_size, const uint8_t *all, size_t size)
{
    CHECK(part >= all && part_size <= size && part + part_size <= all + size);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    uint8_t how = fuzz_octet(&in);
    uint8_t *body = copy_of(in.data, in.size), *part;
    size_t part_size;
    azs_zmtp_frame frame = {body, in.size, how & 4 ? AZS_ZMTP_COMMAND : 0};
    azs_zmtp_subscription subscription;
    if (azs_zmtp_subscription_parse(&frame, &subscription))
        check_inside(subscription.topic, subscription.size, body, in.size);

    azs_zmtp_command command;
    if (azs_zmtp_command_parse(body, in.size, &command) == 0) {
        check_inside(command.data, command.size, body, in.size);
        uint16_t ttl;
        if (azs_zmtp_ping_parse(&command, &ttl, &part, &part_size) == 0) {
            check_inside(part, part_size, body, in.size);
            uint8_t pong[AZS_ZMTP_PING_MAX];
            CHECK_INT(azs_zmtp_pong_put(pong, part, part_size), 5 + part_size);
        }
        if (azs_zmtp_error_parse(&command, &part, &part_size) == 0)
            check_inside(part, part_size, body, in.size);
        azs_zmtp_peer peer = {0};
        azs_zmtp_peer_parse(&peer, how % AZS_ZMTP_TYPES, command.data, command.size);
        azs_zmtp_peer_clear(&peer);
    }
    azs_zmtp_peer peer = {0};
    if (azs_zmtp_peer_parse(&peer, how % AZS_ZMTP_TYPES, body, in.size) == 0) {
        CHECK(azs_zmtp_type_accepts(how % AZS_ZMTP_TYPES, peer.type));
        const uint8_t *at = peer.properties;
        size_t left = peer.properties_size, again = 0;
        uint8_t *written = malloc(left);
        azs_zmtp_property property;
        while (azs_zmtp_property_next(&at, &left, &property) > 0) {
            char name[256];
            memcpy(name, property.name, property.name_size);
            name[property.name_size] = '\0';
            if (strlen(name) != property.name_size)
                continue; /* no C string: cannot be written by us */
            again += azs_zmtp_property_put(written + again, name, property.value,
                                           property.value_size);
        }
        CHECK_INT(left, 0);
        CHECK(again <= peer.properties_size);
        if (again == peer.properties_size)
            CHECK_MEM(written, again, peer.properties, peer.properties_size);
        free(written);
    }
    azs_zmtp_peer_clear(&peer);
    azs_zmtp_fault fault;
    size_t n = in.size < AZS_ZMTP_GREETING_SIZE ? in.size : AZS_ZMTP_GREETING_SIZE;
    if (azs_zmtp_greeting_check(body, n, how % 3, &fault) < 0)
        CHECK(fault != 0);
    free(body);
    return 0;
}
