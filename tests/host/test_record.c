/* SPDX-License-Identifier: MIT */
/* Tests of record: where a frame's record is, and how it comes to be. */
/*
 * At risk: a range that is not that of the block, so that a record is read
 * which nobody backed. Provoked by a backing function that only notes what it
 * was asked for, at the edges of blocks.
 */
#include <mm/record.h>

#include <mm/port.h>
#include "base/bits.h"
#include "tests/host/sim.h"
#include "tests/shared/test.h"
#include "tests/shared/text.h"

#define BLOCK        UINT64_C(512)
#define FRAMES       (UINT64_C(1) << 24)
#define RECORD_BYTES UINT64_C(16)

static MM_ALIGNED(64) char storage[FRAMES / BLOCK / 8];

static struct {
    vaddr_t start;
    vaddr_t end;
    unsigned calls;
    enum mm_status answer;
} asked;

static enum mm_status note(vaddr_t start, vaddr_t end)
{
    asked.start = start;
    asked.end = end;
    asked.calls++;
    return asked.answer;
}

TEST(record, a_block_is_backed_as_a_whole)
{
    static const uint64_t frames[] = {0,    1,    511,      512,
                                      1023, 4096, 0x123456, FRAMES - 1};
    /* Nothing is read there; only the addresses count. */
    void *base = (void *)(uintptr_t)0x10000000;

    record_init(base, note);
    CHECK(record_bytes(FRAMES) <= sizeof(storage));
    record_cover(FRAMES, storage);
    for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
        uint64_t first = align_down(frames[i], BLOCK);
        bool was_there = record_exists(pfn_of(frames[i]));
        asked.answer = MM_ENOMEM;
        asked.calls = 0;
        CHECK_EQUAL(record_back_block(pfn_of(frames[i])),
                    was_there ? MM_OK : MM_ENOMEM);
        CHECK_EQUAL(record_exists(pfn_of(frames[i])), was_there);
        asked.answer = MM_OK;
        CHECK_EQUAL(record_back_block(pfn_of(frames[i])), MM_OK);
        CHECK_EQUAL(asked.calls, was_there ? 0 : 2);
        CHECK(record_exists(pfn_of(frames[i])));
        if (was_there) {
            continue;
        }
        CHECK_EQUAL(asked.start, 0x10000000 + first * RECORD_BYTES);
        CHECK_EQUAL(asked.end - asked.start, BLOCK * RECORD_BYTES);
        CHECK_EQUAL((vaddr_t)record_of(pfn_of(frames[i])),
                    0x10000000 + frames[i] * RECORD_BYTES);
    }
}

TEST(record, a_wild_number_has_no_record)
{
    record_cover(FRAMES, storage);
    CHECK(!record_exists(pfn_of(0)));
    CHECK(!record_exists(pfn_of(FRAMES)));
    CHECK(!record_exists(pfn_of(UINT64_MAX - 1)));
    CHECK(!record_exists(PFN_NONE));
}

TEST(record, every_type_has_a_name_of_its_own)
{
    for (unsigned type = 0; type < FRAME_TYPES; type++) {
        const char *name = frame_type_name((enum frame_type)type);
        CHECK(name[0] != '\0' && !test_begins_with(name, "unknown"));
        for (unsigned other = 0; other < type; other++) {
            CHECK(name != frame_type_name((enum frame_type)other));
        }
    }
    CHECK(test_begins_with(frame_type_name(FRAME_TYPES), "unknown"));
}
