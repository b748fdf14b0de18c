/* Compression of messages: DEFLATE (RFC 1951) in the zlib format (RFC 1950).
 *
 * Any reader of that format reads the result; `zlib` of Python does here. Beside the lowest level of zlib it takes half of the time
 * and gives about the same size, for one candidate for each match, no lazy matching and a table of hashes that stays in the fastest
 * cache. After the rest of the core was compiled, zlib took a quarter of an exchange.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "_deflate.h"

#define WINDOW 32768
#define LEAST_MATCH 4
#define LONGEST_MATCH 258
#define HASH_BITS 13
#define BLOCK_TOKENS 32768
#define LITERALS 286
#define DISTANCES 30
#define LENGTH_CODES 19
#define LONGEST_CODE 15
#define END_OF_BLOCK 256
#define MATCH 0x80000000u /* a token of a match: length - 3 in the bits from 16, distance - 1 below */

typedef struct {
    uint8_t *out;
    size_t size, room;
    uint64_t bits;
    int count;
    int full;
} Writer;

typedef struct {
    uint8_t lengths[LITERALS];
    uint16_t codes[LITERALS];
} Code;

static int
top_bit(uint32_t value)
{
#if defined(__GNUC__)
    return 31 - __builtin_clz(value);
#else
    int bit = 0;
    while (value >>= 1)
        bit++;
    return bit;
#endif
}

static void
flush_bits(Writer *writer)
{
    while (writer->count >= 8) {
        if (writer->size < writer->room)
            writer->out[writer->size++] = (uint8_t)writer->bits;
        else
            writer->full = 1;
        writer->bits >>= 8;
        writer->count -= 8;
    }
}

/* At most 48 bits between two calls of `flush_bits`. */
static void
put_bits(Writer *writer, uint32_t value, int count)
{
    writer->bits |= (uint64_t)value << writer->count;
    writer->count += count;
}

/* The code lengths for some frequencies, none longer than `limit`: Huffman's tree by two queues, then shortened where needed. */
static void
make_code(const uint32_t *frequencies, int symbols, int limit, Code *code)
{
    uint16_t order[LITERALS], parents[2 * LITERALS];
    uint32_t weights[2 * LITERALS];
    uint8_t depths[2 * LITERALS];
    int used = 0, counts[2 * LITERALS] = {0};
    for (int symbol = 0; symbol < symbols; symbol++) {
        code->lengths[symbol] = 0;
        if (frequencies[symbol])
            order[used++] = (uint16_t)symbol;
    }
    if (used < 2) /* no caller has fewer */
        return;
    for (int gap = used / 2; gap > 0; gap /= 2) /* Shell sort, the rarest first */
        for (int i = gap; i < used; i++) {
            uint16_t symbol = order[i];
            int at = i;
            for (; at >= gap && frequencies[order[at - gap]] > frequencies[symbol]; at -= gap)
                order[at] = order[at - gap];
            order[at] = symbol;
        }
    for (int i = 0; i < used; i++)
        weights[i] = frequencies[order[i]];
    int leaf = 0, node = used, last = 2 * used - 1;
    for (int made = used; made < last; made++) {
        uint32_t weight = 0;
        for (int child = 0; child < 2; child++) {
            int taken = leaf < used && (node >= made || weights[leaf] <= weights[node]) ? leaf++ : node++;
            weight += weights[taken];
            parents[taken] = (uint16_t)made;
        }
        weights[made] = weight;
    }
    depths[last - 1] = 0;
    for (int i = last - 2; i >= 0; i--) {
        depths[i] = depths[parents[i]] + 1;
        if (i < used)
            counts[depths[i] < limit ? depths[i] : limit]++;
    }
    uint32_t total = 0;
    for (int length = 1; length <= limit; length++)
        total += (uint32_t)counts[length] << (limit - length);
    for (; total > 1u << limit; total--) {
        int length = limit - 1;
        while (!counts[length])
            length--;
        counts[length]--;
        counts[length + 1] += 2;
        counts[limit]--;
    }
    int place = 0;
    for (int length = limit; length > 0; length--)
        for (int i = 0; i < counts[length]; i++)
            code->lengths[order[place++]] = (uint8_t)length;
    uint32_t next = 0, starts[LONGEST_CODE + 1];
    for (int length = 1; length <= limit; length++) {
        starts[length] = next;
        next = (next + (uint32_t)counts[length]) << 1;
    }
    for (int symbol = 0; symbol < symbols; symbol++) {
        int length = code->lengths[symbol];
        uint32_t value = length ? starts[length]++ : 0, reversed = 0;
        for (int bit = 0; bit < length; bit++)
            reversed |= (value >> bit & 1) << (length - 1 - bit);
        code->codes[symbol] = (uint16_t)reversed;
    }
}

/* The code lengths of both codes, as runs of equal lengths: (symbol, repeats) pairs of section 3.2.7. */
static int
run_lengths(const uint8_t *lengths, int count, uint8_t *symbols, uint8_t *repeats)
{
    int made = 0;
    for (int at = 0; at < count;) {
        int same = 1;
        while (at + same < count && lengths[at + same] == lengths[at])
            same++;
        int left = same;
        if (lengths[at] == 0) {
            while (left >= 3) {
                int taken = left < 138 ? left : 138;
                symbols[made] = taken < 11 ? 17 : 18;
                repeats[made++] = (uint8_t)(taken - (taken < 11 ? 3 : 11));
                left -= taken;
            }
        } else {
            symbols[made] = lengths[at];
            repeats[made++] = 0;
            left--;
            while (left >= 3) {
                int taken = left < 6 ? left : 6;
                symbols[made] = 16;
                repeats[made++] = (uint8_t)(taken - 3);
                left -= taken;
            }
        }
        for (; left > 0; left--) {
            symbols[made] = lengths[at];
            repeats[made++] = 0;
        }
        at += same;
    }
    return made;
}

static int
length_symbol(uint32_t length, int *extra) /* of a length - 3 */
{
    if (length < 8 || length == 255) {
        *extra = 0;
        return length < 8 ? 257 + (int)length : 285;
    }
    int bit = top_bit(length);
    *extra = bit - 2;
    return 257 + 4 * (bit - 1) + (int)(length >> (bit - 2) & 3);
}

static int
distance_symbol(uint32_t distance, int *extra) /* of a distance - 1 */
{
    if (distance < 4) {
        *extra = 0;
        return (int)distance;
    }
    int bit = top_bit(distance);
    *extra = bit - 1;
    return 2 * bit + (int)(distance >> (bit - 1) & 1);
}

static void
write_block(Writer *writer, const uint32_t *tokens, int count, uint32_t *literals, uint32_t *distances, int last)
{
    static const uint8_t order[LENGTH_CODES] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    Code literal_code, distance_code, length_code;
    uint8_t lengths[LITERALS + DISTANCES], symbols[LITERALS + DISTANCES], repeats[LITERALS + DISTANCES];
    uint32_t frequencies[LENGTH_CODES] = {0};
    literals[END_OF_BLOCK]++;
    literals[0] += !literals[0]; /* a code of one symbol would not be complete */
    distances[0] += !distances[0];
    distances[1] += !distances[1];
    make_code(literals, LITERALS, LONGEST_CODE, &literal_code);
    make_code(distances, DISTANCES, LONGEST_CODE, &distance_code);
    memcpy(lengths, literal_code.lengths, LITERALS);
    memcpy(lengths + LITERALS, distance_code.lengths, DISTANCES);
    int runs = run_lengths(lengths, LITERALS + DISTANCES, symbols, repeats);
    for (int i = 0; i < runs; i++)
        frequencies[symbols[i]]++;
    frequencies[0] += !frequencies[0];
    frequencies[18] += !frequencies[18];
    make_code(frequencies, LENGTH_CODES, 7, &length_code);
    int told = LENGTH_CODES;
    while (told > 4 && !length_code.lengths[order[told - 1]])
        told--;
    put_bits(writer, (uint32_t)last | 2 << 1, 3);
    put_bits(writer, LITERALS - 257, 5);
    put_bits(writer, DISTANCES - 1, 5);
    put_bits(writer, (uint32_t)told - 4, 4);
    for (int i = 0; i < told; i++) {
        put_bits(writer, length_code.lengths[order[i]], 3);
        flush_bits(writer);
    }
    for (int i = 0; i < runs; i++) {
        int symbol = symbols[i];
        put_bits(writer, length_code.codes[symbol], length_code.lengths[symbol]);
        if (symbol >= 16)
            put_bits(writer, repeats[i], symbol == 16 ? 2 : symbol == 17 ? 3 : 7);
        flush_bits(writer);
    }
    for (int i = 0; i < count && !writer->full; i++) {
        uint32_t token = tokens[i];
        if (token & MATCH) {
            uint32_t length = token >> 16 & 0xff, distance = token & 0xffff;
            int extra, symbol = length_symbol(length, &extra);
            flush_bits(writer);
            put_bits(writer, literal_code.codes[symbol], literal_code.lengths[symbol]);
            put_bits(writer, length & ((1u << extra) - 1), extra);
            symbol = distance_symbol(distance, &extra);
            put_bits(writer, distance_code.codes[symbol], distance_code.lengths[symbol]);
            put_bits(writer, distance & ((1u << extra) - 1), extra); /* 15 + 5 + 15 + 13 bits at most, and up to 7 before */
        } else {
            put_bits(writer, literal_code.codes[token], literal_code.lengths[token]);
            if (writer->count >= 48)
                flush_bits(writer);
            continue;
        }
        flush_bits(writer);
    }
    flush_bits(writer);
    put_bits(writer, literal_code.codes[END_OF_BLOCK], literal_code.lengths[END_OF_BLOCK]);
    flush_bits(writer);
}

static uint32_t
load_four(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, 4);
    return value;
}

static size_t
same_bytes(const uint8_t *one, const uint8_t *other, size_t most)
{
    size_t same = LEAST_MATCH;
#if defined(__GNUC__) && defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    for (; same + 8 <= most; same += 8) {
        uint64_t first, second;
        memcpy(&first, one + same, 8);
        memcpy(&second, other + same, 8);
        if (first != second)
            return same + (size_t)(__builtin_ctzll(first ^ second) >> 3);
    }
#endif
    while (same < most && one[same] == other[same])
        same++;
    return same;
}

static uint32_t
adler(const uint8_t *data, size_t size)
{
    uint32_t one = 1, two = 0;
    while (size) {
        size_t part = size < 5552 ? size : 5552; /* no sum overflows before */
        size -= part;
        for (; part; part--) {
            one += *data++;
            two += one;
        }
        one %= 65521;
        two %= 65521;
    }
    return two << 16 | one;
}

size_t
deflate_bytes(const uint8_t *data, size_t size, uint8_t *out, size_t room)
{
    uint32_t *tokens = malloc((BLOCK_TOKENS + (1u << HASH_BITS)) * sizeof *tokens), *places;
    if (tokens == NULL || size >= UINT32_MAX || room < 8) {
        free(tokens);
        return 0;
    }
    places = tokens + BLOCK_TOKENS;
    memset(places, 0, sizeof *places << HASH_BITS);
    Writer writer = {out, 2, room, 0, 0, 0};
    out[0] = 0x78; /* a window of 32 KiB */
    out[1] = 0x01; /* the fastest level */
    size_t at = 0;
    do {
        uint32_t literals[LITERALS] = {0}, distances[DISTANCES] = {0};
        int count = 0;
        while (count < BLOCK_TOKENS && at < size) {
            if (size - at >= LEAST_MATCH) {
                uint32_t four = load_four(data + at), hash = four * 2654435761u >> (32 - HASH_BITS);
                size_t candidate = places[hash];
                places[hash] = (uint32_t)at;
                if (candidate < at && at - candidate <= WINDOW && load_four(data + candidate) == four) {
                    size_t most = size - at < LONGEST_MATCH ? size - at : LONGEST_MATCH;
                    size_t length = same_bytes(data + candidate, data + at, most), distance = at - candidate - 1;
                    int extra;
                    literals[length_symbol((uint32_t)length - 3, &extra)]++;
                    distances[distance_symbol((uint32_t)distance, &extra)]++;
                    tokens[count++] = MATCH | (uint32_t)(length - 3) << 16 | (uint32_t)distance;
                    at += length;
                    if (size - at >= LEAST_MATCH - 1)
                        places[load_four(data + at - 1) * 2654435761u >> (32 - HASH_BITS)] = (uint32_t)at - 1;
                    continue;
                }
            }
            literals[data[at]]++;
            tokens[count++] = data[at++];
        }
        write_block(&writer, tokens, count, literals, distances, at == size);
    } while (at < size && !writer.full);
    free(tokens);
    if (writer.count)
        put_bits(&writer, 0, 8 - writer.count % 8);
    flush_bits(&writer);
    if (writer.full || writer.size + 4 > room)
        return 0;
    uint32_t sum = adler(data, size);
    for (int byte = 3; byte >= 0; byte--)
        out[writer.size++] = (uint8_t)(sum >> 8 * byte);
    return writer.size;
}
