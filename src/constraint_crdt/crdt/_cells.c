/* The compiled core: cells, tables of cells, and the loops over both.
 *
 * `pure_cells.py` has the same names in Python. It is the specification: a call gives the same result and the same errors here and
 * there, and the tests run on both. `cells.py` chooses at import. With CONSTRAINT_CRDT_PURE=1 in the environment this module refuses
 * to be imported.
 *
 * Rules kept here:
 *
 * - The reader accepts here what it is sure of: an ADD, COUNTS or SIGNATURE cell of the usual form. Every other cell is handed to the reader
 *   in Python, which accepts or refuses it. So no rule about malformed input is written twice.
 * - No length in the input is trusted before it was compared with the end of the input.
 * - A cell holds its bytes, its digest and its key in one block of memory. Neither a cell nor a table can be part of a cycle, so the
 *   garbage collector does not visit them.
 * - The hash is BLAKE2b (RFC 7693) with a key. A table hashes keys by SipHash-1-3 (Aumasson and Bernstein, 2012) with a random key,
 *   since keys come from outside.
 * - Only the limited API of CPython 3.11 is used: one build serves all later versions.
 */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "_deflate.h"

#define ADD 1
#define COUNTS 3
#define SIGNATURE 28
#define SIGNATURE_BYTES 64
#define MAX_KIND 127
#define ID_BYTES 256
#define MEANING 3 /* the highest meaning version of definitions that is known: see `definition.py` */
#define CELL_BYTES (32 * 1024)
#define DIGEST_BYTES 32
#define MAX_COUNT INT64_MAX
#define MAX_DEPTH 64
#define GIVES_WAY 4096 /* cells read before other threads may run */

typedef struct {
    PyObject_VAR_HEAD    /* ob_size: the bytes of the cell */
    PyObject *replica;   /* NULL: not bound to a row */
    PyObject *given;     /* NULL; or (key, data), where these are not those in the bytes below; data may be None */
    int64_t seq;
    uint8_t digest[DIGEST_BYTES]; /* big-endian */
    uint16_t key_at;     /* where the text of the key begins; 0: the key is the seq */
    uint16_t key_size;
    uint8_t kind;
    uint8_t hashed;      /* the digest is known */
    uint8_t endless;     /* the reader saw that the definition has no end */
    uint8_t data[];
} Cell;

#define DATA_AT offsetof(Cell, data)

/* A key, borrowed from a cell or from a text. */
typedef struct {
    const char *text;    /* NULL: a number */
    Py_ssize_t size;
    int64_t number;
} Key;

typedef struct {
    PyObject_HEAD
    PyObject **holders;  /* in the order of insertion: a cell, or a dict of cells by replica; NULL: taken out */
    uint32_t *hashes;    /* of the same places */
    int32_t *index;      /* places by hash */
    Py_ssize_t slots;    /* of `index`: a power of two, or 0 */
    Py_ssize_t taken;    /* slots that are not FREE */
    Py_ssize_t room;     /* of `holders` */
    Py_ssize_t end;      /* places in use, those taken out included */
    Py_ssize_t used;     /* keys */
} Table;

#define FREE (-1)
#define GONE (-2)

typedef struct {
    PyObject_HEAD
    Table *table;
    Py_ssize_t place;
    Py_ssize_t used;     /* of the table, when the iteration began */
    char what;           /* 'k'eys, 'v'alues or 'i'tems */
} Places;

static PyTypeObject *cell_type, *table_type, *places_type;
static PyObject *unbound, *from_bytes, *big;
static uint64_t sip_key[2];

static PyObject *
imported(const char *module, const char *name)
{
    PyObject *found = PyImport_ImportModule(module);
    PyObject *value = found == NULL ? NULL : PyObject_GetAttrString(found, name);
    Py_XDECREF(found);
    return value;
}

/* --- numbers of 256 bits ----------------------------------------------------------------------------------------------------- */

static uint64_t
load_big(const uint8_t *at)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | at[i];
    return value;
}

static void
store_big(uint8_t *at, uint64_t value)
{
    for (int i = 7; i >= 0; i--, value >>= 8)
        at[i] = (uint8_t)value;
}

static PyObject *
number_of(const uint8_t *bytes, Py_ssize_t size)
{
    PyObject *data = PyBytes_FromStringAndSize((const char *)bytes, size);
    if (data == NULL)
        return NULL;
    PyObject *number = PyObject_CallFunctionObjArgs(from_bytes, data, big, NULL);
    Py_DECREF(data);
    return number;
}

/* The sum grows beyond 256 bits: sums of Python are exact, and so are these. */
static void
add_digest(uint64_t sum[5], const uint8_t *digest)
{
    unsigned carry = 0;
    for (int i = 0; i < 4; i++) {
        uint64_t before = sum[i], value = load_big(digest + 8 * (3 - i));
        uint64_t after = before + value;
        unsigned over = after < before;
        after += carry;
        over |= carry && after == 0;
        sum[i] = after;
        carry = over;
    }
    sum[4] += carry;
}

/* --- BLAKE2b ------------------------------------------------------------------------------------------------------------------ */

#define BLOCK 128

static const uint64_t blake_iv[8] = {
    0x6a09e667f3bcc908ULL, 0xbb67ae8584caa73bULL, 0x3c6ef372fe94f82bULL, 0xa54ff53a5f1d36f1ULL,
    0x510e527fade682d1ULL, 0x9b05688c2b3e6c1fULL, 0x1f83d9abfb41bd6bULL, 0x5be0cd19137e2179ULL,
};

static uint64_t
load_little(const uint8_t *at)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    uint64_t value;
    memcpy(&value, at, 8);
    return value;
#else
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | at[i];
    return value;
#endif
}

#define ROTATE(x, n) ((x) >> (n) | (x) << (64 - (n)))
#define MIX(a, b, c, d, x, y)            \
    do {                                 \
        a += b + (x);                    \
        d = ROTATE(d ^ a, 32);           \
        c += d;                          \
        b = ROTATE(b ^ c, 24);           \
        a += b + (y);                    \
        d = ROTATE(d ^ a, 16);           \
        c += d;                          \
        b = ROTATE(b ^ c, 63);           \
    } while (0)
#define ROUND(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, sa, sb, sc, sd, se, sf) \
    do {                                                                      \
        MIX(v0, v4, v8, vc, m[s0], m[s1]);                                    \
        MIX(v1, v5, v9, vd, m[s2], m[s3]);                                    \
        MIX(v2, v6, va, ve, m[s4], m[s5]);                                    \
        MIX(v3, v7, vb, vf, m[s6], m[s7]);                                    \
        MIX(v0, v5, va, vf, m[s8], m[s9]);                                    \
        MIX(v1, v6, vb, vc, m[sa], m[sb]);                                    \
        MIX(v2, v7, v8, vd, m[sc], m[sd]);                                    \
        MIX(v3, v4, v9, ve, m[se], m[sf]);                                    \
    } while (0)

#define TWELVE_ROUNDS                                                \
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);     \
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);     \
    ROUND(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4);     \
    ROUND(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8);     \
    ROUND(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13);     \
    ROUND(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9);     \
    ROUND(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11);     \
    ROUND(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10);     \
    ROUND(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5);     \
    ROUND(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0);     \
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);     \
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);

static void
compress(uint64_t h[8], const uint8_t *block, uint64_t counted, int last)
{
    uint64_t m[16];
    for (int i = 0; i < 16; i++)
        m[i] = load_little(block + 8 * i);
    uint64_t v0 = h[0], v1 = h[1], v2 = h[2], v3 = h[3], v4 = h[4], v5 = h[5], v6 = h[6], v7 = h[7];
    uint64_t v8 = blake_iv[0], v9 = blake_iv[1], va = blake_iv[2], vb = blake_iv[3];
    uint64_t vc = blake_iv[4] ^ counted, vd = blake_iv[5], ve = last ? ~blake_iv[6] : blake_iv[6], vf = blake_iv[7];
    TWELVE_ROUNDS
    h[0] ^= v0 ^ v8, h[1] ^= v1 ^ v9, h[2] ^= v2 ^ va, h[3] ^= v3 ^ vb;
    h[4] ^= v4 ^ vc, h[5] ^= v5 ^ vd, h[6] ^= v6 ^ ve, h[7] ^= v7 ^ vf;
}

/* Four hashes at a time, a lane each, where the processor can: of cells that fit into the block after the key, which most do. */
#if defined(__x86_64__) && defined(__GNUC__)
#define LANES 4

typedef uint64_t Lanes __attribute__((vector_size(8 * LANES)));

__attribute__((target("avx2"))) static void
compress_lanes(Lanes start[8], const uint8_t *const blocks[LANES], const uint64_t counted[LANES], int last)
{
    Lanes m[16], all;
    for (int i = 0; i < 16; i++)
        for (int lane = 0; lane < LANES; lane++)
            m[i][lane] = load_little(blocks[lane] + 8 * i);
    Lanes v0 = start[0], v1 = start[1], v2 = start[2], v3 = start[3], v4 = start[4], v5 = start[5], v6 = start[6], v7 = start[7];
    all = (Lanes){0};
    Lanes v8 = all + blake_iv[0], v9 = all + blake_iv[1], va = all + blake_iv[2], vb = all + blake_iv[3];
    Lanes vc = (Lanes){counted[0], counted[1], counted[2], counted[3]} ^ blake_iv[4];
    Lanes vd = all + blake_iv[5], ve = all + (last ? ~blake_iv[6] : blake_iv[6]), vf = all + blake_iv[7];
    TWELVE_ROUNDS
    start[0] ^= v0 ^ v8, start[1] ^= v1 ^ v9, start[2] ^= v2 ^ va, start[3] ^= v3 ^ vb;
    start[4] ^= v4 ^ vc, start[5] ^= v5 ^ vd, start[6] ^= v6 ^ ve, start[7] ^= v7 ^ vf;
}

/* Four hashes of as many blocks each, from one beginning on. Digests of up to 32 bytes. */
__attribute__((target("avx2"))) static void
hash_lanes(const uint64_t h[8], const uint8_t *const data[LANES], const uint64_t counted[LANES], int blocks, uint8_t out[LANES][32])
{
    Lanes state[8];
    for (int i = 0; i < 8; i++)
        state[i] = (Lanes){h[i], h[i], h[i], h[i]};
    for (int block = 1; block <= blocks; block++) {
        const uint8_t *at[LANES];
        uint64_t upto[LANES];
        for (int lane = 0; lane < LANES; lane++) {
            at[lane] = data[lane] + (block - 1) * BLOCK;
            upto[lane] = block == blocks ? counted[lane] : counted[lane] - (uint64_t)(blocks - block) * BLOCK;
        }
        compress_lanes(state, at, upto, block == blocks);
    }
    for (int lane = 0; lane < LANES; lane++)
        for (int word = 0; word < 4; word++) {
            uint64_t value = state[word][lane];
            memcpy(out[lane] + 8 * word, &value, 8); /* x86 is little-endian */
        }
}

#define HAVE_LANES __builtin_cpu_supports("avx2")
#endif

typedef struct {
    uint64_t h[8];
    uint64_t counted;
    uint8_t block[BLOCK];
    Py_ssize_t filled;
} Hasher;

#define PERSON_BYTES 16
#define MOST_HASH_BYTES 64

/* A hash of so many bytes. The sizes of key and purpose (`person`) are in bounds. A key is a block of its own. */
static void
hasher_begin(Hasher *hasher, int size, const char *person, Py_ssize_t person_size, const char *key, Py_ssize_t key_size)
{
    uint8_t purpose[PERSON_BYTES] = {0};
    memcpy(purpose, person, (size_t)person_size);
    memcpy(hasher->h, blake_iv, sizeof blake_iv);
    hasher->h[0] ^= 0x01010000 ^ (uint64_t)key_size << 8 ^ (uint64_t)size;
    hasher->h[6] ^= load_little(purpose);
    hasher->h[7] ^= load_little(purpose + 8);
    memset(hasher->block, 0, BLOCK);
    memcpy(hasher->block, key, (size_t)key_size);
    hasher->counted = 0;
    hasher->filled = key_size ? BLOCK : 0;
}

/* The last block stays in the buffer, since its compression differs. */
static void
hasher_update(Hasher *hasher, const uint8_t *data, Py_ssize_t size)
{
    while (size > 0) {
        if (hasher->filled == BLOCK) {
            hasher->counted += BLOCK;
            compress(hasher->h, hasher->block, hasher->counted, 0);
            hasher->filled = 0;
        }
        Py_ssize_t part = BLOCK - hasher->filled < size ? BLOCK - hasher->filled : size;
        memcpy(hasher->block + hasher->filled, data, part);
        hasher->filled += part;
        data += part;
        size -= part;
    }
}

/* The rest of the block is zeros in its compression. */
static void
hasher_pad(Hasher *hasher)
{
    memset(hasher->block + hasher->filled, 0, (size_t)(BLOCK - hasher->filled));
}

static void
hasher_end(Hasher *hasher, uint8_t *digest, int size)
{
    hasher_pad(hasher);
    compress(hasher->h, hasher->block, hasher->counted + (uint64_t)hasher->filled, 1);
    for (int i = 0; i < size; i++)
        digest[i] = (uint8_t)(hasher->h[i / 8] >> 8 * (i % 8));
}

/* --- hashes of keys ----------------------------------------------------------------------------------------------------------- */

#define SIP_ROUND                                                                          \
    do {                                                                                   \
        v0 += v1, v1 = v1 << 13 | v1 >> 51, v1 ^= v0, v0 = v0 << 32 | v0 >> 32;            \
        v2 += v3, v3 = v3 << 16 | v3 >> 48, v3 ^= v2;                                      \
        v0 += v3, v3 = v3 << 21 | v3 >> 43, v3 ^= v0;                                      \
        v2 += v1, v1 = v1 << 17 | v1 >> 47, v1 ^= v2, v2 = v2 << 32 | v2 >> 32;            \
    } while (0)

static uint32_t
hash_bytes(const uint8_t *data, size_t size)
{
    uint64_t v0 = sip_key[0] ^ 0x736f6d6570736575ULL, v1 = sip_key[1] ^ 0x646f72616e646f6dULL;
    uint64_t v2 = sip_key[0] ^ 0x6c7967656e657261ULL, v3 = sip_key[1] ^ 0x7465646279746573ULL;
    uint64_t last = (uint64_t)size << 56;
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word = load_little(data);
        v3 ^= word;
        SIP_ROUND;
        v0 ^= word;
    }
    for (size_t i = 0; i < size; i++)
        last |= (uint64_t)data[i] << 8 * i;
    v3 ^= last;
    SIP_ROUND;
    v0 ^= last;
    v2 ^= 0xff;
    SIP_ROUND;
    SIP_ROUND;
    SIP_ROUND;
    uint64_t hash = v0 ^ v1 ^ v2 ^ v3;
    return (uint32_t)(hash ^ hash >> 32);
}

static uint32_t
hash_key(const Key *key)
{
    if (key->text != NULL)
        return hash_bytes((const uint8_t *)key->text, (size_t)key->size);
    uint8_t number[9];
    store_big(number, (uint64_t)key->number);
    number[8] = 0xff; /* in no text */
    return hash_bytes(number, sizeof number);
}

static int
same_key(const Key *one, const Key *other)
{
    if (one->text == NULL || other->text == NULL)
        return one->text == other->text && one->number == other->number;
    return one->size == other->size && memcmp(one->text, other->text, (size_t)one->size) == 0;
}

/* The key in an object. 0: an object of another type, or a text or a number that no cell can have as its key. */
static int
key_of_object(PyObject *object, Key *key)
{
    if (PyUnicode_Check(object)) {
        key->text = PyUnicode_AsUTF8AndSize(object, &key->size);
        if (key->text == NULL)
            PyErr_Clear();
        return key->text != NULL;
    }
    key->text = NULL;
    if (!PyLong_Check(object))
        return 0;
    int overflow;
    key->number = PyLong_AsLongLongAndOverflow(object, &overflow);
    return !overflow;
}

/* --- cells -------------------------------------------------------------------------------------------------------------------- */

static void
bytes_of(Cell *cell, const uint8_t **data, Py_ssize_t *size)
{
    PyObject *given = cell->given == NULL ? Py_None : PyTuple_GetItem(cell->given, 1);
    if (given != Py_None) {
        char *bytes = NULL;
        PyBytes_AsStringAndSize(given, &bytes, size);
        *data = (const uint8_t *)bytes;
    } else {
        *data = cell->data;
        *size = Py_SIZE((PyObject *)cell);
    }
}

/* 0 if the key is a text that has no UTF-8, or too large a number: such a cell is in no table. */
static int
key_of_cell(Cell *cell, Key *key)
{
    if (cell->given != NULL)
        return key_of_object(PyTuple_GetItem(cell->given, 0), key);
    if (cell->key_at) {
        key->text = (const char *)cell->data + cell->key_at;
        key->size = cell->key_size;
    } else {
        key->text = NULL;
        key->number = cell->seq;
    }
    return 1;
}

/* The place of a key of a short or longer text within the bytes of a cell; 0: another form, or no text. */
static int
find_key(const uint8_t *data, Py_ssize_t size, uint16_t *at, uint16_t *length)
{
    if (size < 3)
        return 0;
    Py_ssize_t start, count;
    if (data[2] >> 5 == 5) {
        start = 3, count = data[2] & 0x1f;
    } else if (data[2] == 0xd9 && size > 3) {
        start = 4, count = data[3];
    } else if (data[2] == 0xda && size > 4) {
        start = 5, count = data[3] << 8 | data[4];
    } else {
        return 0;
    }
    if (start + count > size || count > UINT16_MAX)
        return 0;
    *at = (uint16_t)start;
    *length = (uint16_t)count;
    return 1;
}

static Cell *
new_cell(const uint8_t *data, Py_ssize_t size, int kind)
{
    Cell *cell = PyObject_Malloc(DATA_AT + (size_t)size);
    if (cell == NULL)
        return (Cell *)PyErr_NoMemory();
    PyObject_InitVar((PyVarObject *)cell, cell_type, size);
    cell->replica = cell->given = NULL;
    cell->seq = 0;
    cell->key_at = cell->key_size = 0;
    cell->kind = (uint8_t)kind;
    cell->hashed = cell->endless = 0;
    memset(cell->digest, 0, DIGEST_BYTES);
    memcpy(cell->data, data, (size_t)size);
    return cell;
}

static PyObject *
cell_key(Cell *cell, void *Py_UNUSED(closure))
{
    if (cell->given != NULL)
        return Py_NewRef(PyTuple_GetItem(cell->given, 0));
    if (cell->key_at)
        return PyUnicode_FromStringAndSize((const char *)cell->data + cell->key_at, cell->key_size);
    return PyLong_FromLongLong(cell->seq);
}

static PyObject *
cell_data(Cell *cell, void *Py_UNUSED(closure))
{
    const uint8_t *data;
    Py_ssize_t size;
    bytes_of(cell, &data, &size);
    return PyBytes_FromStringAndSize((const char *)data, size);
}

static int
deleted(PyObject *value)
{
    if (value == NULL)
        PyErr_SetString(PyExc_AttributeError, "an attribute of a cell cannot be deleted");
    return value == NULL;
}

static int
cell_set_key(Cell *cell, PyObject *value, void *Py_UNUSED(closure))
{
    if (deleted(value))
        return -1;
    PyObject *data = cell->given == NULL ? Py_None : PyTuple_GetItem(cell->given, 1);
    Key given, own;
    int known = key_of_object(value, &given);
    PyObject *before = cell->given, *after = NULL;
    cell->given = NULL;
    if (data != Py_None || !known || !key_of_cell(cell, &own) || !same_key(&given, &own)) {
        after = PyTuple_Pack(2, value, data);
        if (after == NULL) {
            cell->given = before;
            return -1;
        }
    }
    cell->given = after;
    Py_XDECREF(before);
    return 0;
}

static int
cell_set_data(Cell *cell, PyObject *value, void *Py_UNUSED(closure))
{
    if (deleted(value))
        return -1;
    if (!PyBytes_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "the data of a cell are bytes");
        return -1;
    }
    PyObject *key = cell_key(cell, NULL);
    PyObject *after = key == NULL ? NULL : PyTuple_Pack(2, key, value);
    Py_XDECREF(key);
    if (after == NULL)
        return -1;
    Py_XDECREF(cell->given);
    cell->given = after;
    return 0;
}

static PyObject *
cell_replica(Cell *cell, void *Py_UNUSED(closure))
{
    return Py_NewRef(cell->replica == NULL ? unbound : cell->replica);
}

static int
cell_set_replica(Cell *cell, PyObject *value, void *Py_UNUSED(closure))
{
    if (deleted(value))
        return -1;
    PyObject *before = cell->replica;
    cell->replica = Py_NewRef(value);
    Py_XDECREF(before);
    return 0;
}

static PyObject *
cell_seq(Cell *cell, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(cell->seq);
}

static int
cell_set_seq(Cell *cell, PyObject *value, void *Py_UNUSED(closure))
{
    if (deleted(value))
        return -1;
    long long seq = PyLong_AsLongLong(value);
    if (seq == -1 && PyErr_Occurred())
        return -1;
    if (!cell->key_at && cell->given == NULL && cell->seq && seq != cell->seq) { /* a bound cell keeps its key */
        PyObject *key = PyLong_FromLongLong(cell->seq);
        cell->given = key == NULL ? NULL : PyTuple_Pack(2, key, Py_None);
        Py_XDECREF(key);
        if (cell->given == NULL)
            return -1;
    }
    cell->seq = seq;
    return 0;
}

static PyObject *
cell_kind(Cell *cell, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(cell->kind);
}

static PyObject *
cell_digest(Cell *cell, void *Py_UNUSED(closure))
{
    return number_of(cell->digest, cell->hashed ? DIGEST_BYTES : 0);
}

static int
cell_set_digest(Cell *cell, PyObject *value, void *Py_UNUSED(closure))
{
    if (deleted(value))
        return -1;
    PyObject *bytes = PyObject_CallMethod(value, "to_bytes", "iO", DIGEST_BYTES, big);
    if (bytes == NULL)
        return -1;
    char *digest = PyBytes_AsString(bytes);
    if (digest == NULL) {
        Py_DECREF(bytes);
        return -1;
    }
    memcpy(cell->digest, digest, DIGEST_BYTES);
    cell->hashed = 0;
    for (int i = 0; i < DIGEST_BYTES; i++)
        cell->hashed |= cell->digest[i] != 0;
    Py_DECREF(bytes);
    return 0;
}

static PyObject *
cell_new(PyTypeObject *Py_UNUSED(type), PyObject *arguments, PyObject *names)
{
    static char *words[] = {"kind", "key", "data", "seq", "replica", "digest", NULL};
    int kind;
    PyObject *key, *data, *seq = NULL, *replica = NULL, *digest = NULL;
    if (!PyArg_ParseTupleAndKeywords(arguments, names, "iOS|OOO", words, &kind, &key, &data, &seq, &replica, &digest))
        return NULL;
    if (kind < 0 || kind > UINT8_MAX) {
        PyErr_SetString(PyExc_ValueError, "the kind of a cell is a small number");
        return NULL;
    }
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(data, &bytes, &size) < 0)
        return NULL;
    Cell *cell = new_cell((const uint8_t *)bytes, size, kind);
    if (cell == NULL)
        return NULL;
    if (PyUnicode_Check(key))
        find_key(cell->data, size, &cell->key_at, &cell->key_size);
    if ((seq != NULL && cell_set_seq(cell, seq, NULL) < 0) || cell_set_key(cell, key, NULL) < 0 ||
        (digest != NULL && cell_set_digest(cell, digest, NULL) < 0)) {
        Py_DECREF((PyObject *)cell);
        return NULL;
    }
    cell->replica = replica == NULL || replica == unbound ? NULL : Py_NewRef(replica);
    return (PyObject *)cell;
}

static void
cell_dealloc(Cell *cell)
{
    PyTypeObject *type = Py_TYPE((PyObject *)cell);
    Py_XDECREF(cell->replica);
    Py_XDECREF(cell->given);
    PyObject_Free(cell);
    Py_DECREF((PyObject *)type);
}

static PyObject *
cell_repr(Cell *cell)
{
    PyObject *key = cell_key(cell, NULL), *data = cell_data(cell, NULL), *replica = cell_replica(cell, NULL), *text = NULL;
    if (key != NULL && data != NULL)
        text = PyUnicode_FromFormat(
            "Cell(kind=%d, key=%R, data=%R, seq=%lld, replica=%R)", cell->kind, key, data, (long long)cell->seq, replica);
    Py_XDECREF(key);
    Py_XDECREF(data);
    Py_XDECREF(replica);
    return text;
}

static PyObject *
cell_reduce(Cell *cell, PyObject *Py_UNUSED(nothing))
{
    PyObject *key = cell_key(cell, NULL), *data = cell_data(cell, NULL), *digest = cell_digest(cell, NULL);
    if (key == NULL || data == NULL || digest == NULL) {
        Py_XDECREF(key);
        Py_XDECREF(data);
        Py_XDECREF(digest);
        return NULL;
    }
    return Py_BuildValue(
        "O(iNNLNN)", cell_type, cell->kind, key, data, (long long)cell->seq, cell_replica(cell, NULL), digest);
}

static PyGetSetDef cell_fields[] = {
    {"kind", (getter)cell_kind, NULL, NULL, NULL},
    {"key", (getter)cell_key, (setter)cell_set_key, NULL, NULL},
    {"data", (getter)cell_data, (setter)cell_set_data, NULL, NULL},
    {"seq", (getter)cell_seq, (setter)cell_set_seq, NULL, NULL},
    {"replica", (getter)cell_replica, (setter)cell_set_replica, NULL, NULL},
    {"digest", (getter)cell_digest, (setter)cell_set_digest, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef cell_methods[] = {
    {"__reduce__", (PyCFunction)cell_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot cell_slots[] = {
    {Py_tp_new, cell_new},
    {Py_tp_dealloc, cell_dealloc},
    {Py_tp_repr, cell_repr},
    {Py_tp_getset, cell_fields},
    {Py_tp_methods, cell_methods},
    {Py_tp_doc, "A cell, bound to its dot; see `pure_cells.Cell`."},
    {0, NULL},
};

static PyType_Spec cell_spec = {"constraint_crdt.crdt._cells.Cell", DATA_AT, 1, Py_TPFLAGS_DEFAULT, cell_slots};

static int
is_cell(PyObject *object)
{
    return Py_IS_TYPE(object, cell_type);
}

/* A list or tuple of cells as an object with fast access; NULL with an error for anything else. */
static PyObject *
cells_of(PyObject *sequence, Py_ssize_t *count)
{
    PyObject *cells = PyList_Check(sequence) || PyTuple_Check(sequence) ? Py_NewRef(sequence) : PySequence_List(sequence);
    if (cells == NULL)
        return NULL;
    *count = PyList_Check(cells) ? PyList_Size(cells) : PyTuple_Size(cells);
    return cells;
}

static Cell *
cell_at(PyObject *cells, Py_ssize_t place)
{
    PyObject *item = PyList_Check(cells) ? PyList_GetItem(cells, place) : PyTuple_GetItem(cells, place);
    if (item != NULL && !is_cell(item)) {
        PyErr_SetString(PyExc_TypeError, "a sequence of cells holds something else");
        return NULL;
    }
    return (Cell *)item;
}

/* --- tables ------------------------------------------------------------------------------------------------------------------- */

/* The key of a holder. 0: a dict without a cell, which no key finds. */
static int
key_of_holder(PyObject *holder, Key *key)
{
    if (!is_cell(holder)) {
        Py_ssize_t at = 0;
        PyObject *replica, *cell;
        if (!PyDict_Next(holder, &at, &replica, &cell) || !is_cell(cell))
            return 0;
        holder = cell;
    }
    return key_of_cell((Cell *)holder, key);
}

/* The slot of a key; or, if the key is not in the table, -1. */
static Py_ssize_t
find_slot(Table *table, const Key *key, uint32_t hash)
{
    if (!table->slots)
        return -1;
    Py_ssize_t mask = table->slots - 1;
    for (Py_ssize_t slot = hash & mask;; slot = (slot + 1) & mask) {
        int32_t place = table->index[slot];
        if (place == FREE)
            return -1;
        Key other;
        if (place != GONE && table->hashes[place] == hash && key_of_holder(table->holders[place], &other) && same_key(key, &other))
            return slot;
    }
}

static Py_ssize_t
find_place(Table *table, const Key *key)
{
    Py_ssize_t slot = find_slot(table, key, hash_key(key));
    return slot < 0 ? -1 : table->index[slot];
}

/* Make room for more places at the end. The index stays as it is. */
static int
grow_places(Table *table, Py_ssize_t more)
{
    if (table->end + more <= table->room)
        return 0;
    Py_ssize_t room = table->end + (more > table->end / 4 + 8 ? more : table->end / 4 + 8);
    PyObject **holders = PyMem_Realloc(table->holders, (size_t)room * sizeof *holders);
    if (holders != NULL)
        table->holders = holders;
    uint32_t *hashes = holders == NULL ? NULL : PyMem_Realloc(table->hashes, (size_t)room * sizeof *hashes);
    if (hashes == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    table->hashes = hashes;
    table->room = room;
    return 0;
}

/* Leave out the places taken out, and make room for more keys. */
static int
make_room(Table *table, Py_ssize_t more)
{
    Py_ssize_t keys = table->used + more;
    if (keys >= INT32_MAX / 2) {
        PyErr_NoMemory();
        return -1;
    }
    Py_ssize_t slots = 8;
    while (slots * 3 < keys * 4)
        slots *= 2;
    int32_t *index = PyMem_Malloc((size_t)slots * sizeof *index);
    if (index == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    Py_ssize_t end = 0;
    for (Py_ssize_t place = 0; place < table->end; place++)
        if (table->holders[place] != NULL) {
            table->holders[end] = table->holders[place];
            table->hashes[end++] = table->hashes[place];
        }
    table->end = end;
    if (grow_places(table, more) < 0) {
        PyMem_Free(index);
        /* The places moved, so the index is made anew within its old size. */
        if (table->slots) {
            memset(table->index, 0xff, (size_t)table->slots * sizeof *table->index);
            for (Py_ssize_t place = 0; place < end; place++) {
                Py_ssize_t slot = table->hashes[place] & (table->slots - 1);
                while (table->index[slot] != FREE)
                    slot = (slot + 1) & (table->slots - 1);
                table->index[slot] = (int32_t)place;
            }
            table->taken = end;
        }
        return -1;
    }
    memset(index, 0xff, (size_t)slots * sizeof *index);
    for (Py_ssize_t place = 0; place < end; place++) {
        Py_ssize_t slot = table->hashes[place] & (slots - 1);
        while (index[slot] != FREE)
            slot = (slot + 1) & (slots - 1);
        index[slot] = (int32_t)place;
    }
    PyMem_Free(table->index);
    table->index = index;
    table->slots = slots;
    table->taken = end;
    return 0;
}

/* Make room for more keys. The index is made anew where it would be too full, or where a quarter of the places was taken out. */
static int
ensure_room(Table *table, Py_ssize_t more)
{
    int fits = (table->taken + more) * 4 <= table->slots * 3;
    if (fits && table->end + more <= table->room)
        return 0;
    if (fits && (table->end - table->used) * 4 <= table->end && table->end + more < INT32_MAX / 2)
        return grow_places(table, more);
    return make_room(table, more + table->used / 8);
}

/* Append a holder under a key that is not in the table. */
static int
append(Table *table, uint32_t hash, PyObject *holder)
{
    if (ensure_room(table, 1) < 0)
        return -1;
    Py_ssize_t mask = table->slots - 1, slot = hash & mask;
    while (table->index[slot] >= 0)
        slot = (slot + 1) & mask;
    table->taken += table->index[slot] == FREE;
    table->index[slot] = (int32_t)table->end;
    table->hashes[table->end] = hash;
    table->holders[table->end++] = Py_NewRef(holder);
    table->used++;
    return 0;
}

static void
take_out(Table *table, Py_ssize_t slot)
{
    Py_ssize_t place = table->index[slot];
    PyObject *holder = table->holders[place];
    table->index[slot] = GONE;
    table->holders[place] = NULL;
    table->used--;
    if (place == table->end - 1)
        table->end--;
    Py_DECREF(holder);
}

static void
set_holder(Table *table, Py_ssize_t place, PyObject *holder)
{
    PyObject *before = table->holders[place];
    table->holders[place] = Py_NewRef(holder);
    Py_DECREF(before);
}

static int
same_replica(PyObject *one, PyObject *other)
{
    return one == other ? 1 : PyObject_RichCompareBool(one, other, Py_EQ);
}

static PyObject *
replica_of(Cell *cell)
{
    return cell->replica == NULL ? unbound : cell->replica;
}

static int
key_for_table(Cell *cell, Key *key)
{
    if (key_of_cell(cell, key))
        return 1;
    PyErr_SetString(PyExc_ValueError, "no cell has such a key");
    return 0;
}

static Cell *
checked(PyObject *object)
{
    if (is_cell(object))
        return (Cell *)object;
    PyErr_SetString(PyExc_TypeError, "a table holds cells");
    return NULL;
}

static PyObject *
table_put(Table *table, PyObject *object)
{
    Cell *cell = checked(object);
    Key key;
    if (cell == NULL || !key_for_table(cell, &key))
        return NULL;
    uint32_t hash = hash_key(&key);
    Py_ssize_t slot = find_slot(table, &key, hash);
    if (slot < 0) {
        if (append(table, hash, object) < 0)
            return NULL;
        Py_RETURN_NONE;
    }
    Py_ssize_t place = table->index[slot];
    PyObject *held = table->holders[place], *replica = replica_of(cell);
    if (is_cell(held)) {
        int same = same_replica(replica_of((Cell *)held), replica);
        if (same < 0)
            return NULL;
        if (same) {
            Py_INCREF(held);
            set_holder(table, place, object);
            return held;
        }
        PyObject *both = PyDict_New();
        if (both == NULL || PyDict_SetItem(both, replica_of((Cell *)held), held) < 0 || PyDict_SetItem(both, replica, object) < 0) {
            Py_XDECREF(both);
            return NULL;
        }
        set_holder(table, place, both);
        Py_DECREF(both);
        Py_RETURN_NONE;
    }
    PyObject *old = PyDict_GetItemWithError(held, replica);
    if (old == NULL && PyErr_Occurred())
        return NULL;
    old = Py_NewRef(old == NULL ? Py_None : old);
    if (PyDict_SetItem(held, replica, object) < 0) {
        Py_DECREF(old);
        return NULL;
    }
    return old;
}

static PyObject *
table_put_first(Table *table, PyObject *object)
{
    Cell *cell = checked(object);
    Key key;
    if (cell == NULL || !key_for_table(cell, &key))
        return NULL;
    uint32_t hash = hash_key(&key);
    if (find_slot(table, &key, hash) >= 0)
        Py_RETURN_FALSE;
    if (append(table, hash, object) < 0)
        return NULL;
    Py_RETURN_TRUE;
}

static PyObject *
table_put_new(Table *table, PyObject *sequence)
{
    Py_ssize_t count;
    PyObject *cells = cells_of(sequence, &count);
    if (cells == NULL)
        return NULL;
    Py_ssize_t done = 0;
    int failed = ensure_room(table, count) < 0;
    for (; !failed && done < count; done++) {
        Cell *cell = cell_at(cells, done);
        Key key;
        if (cell == NULL || !key_for_table(cell, &key)) {
            failed = 1;
            break;
        }
        uint32_t hash = hash_key(&key);
        if (find_slot(table, &key, hash) >= 0)
            break;
        if (append(table, hash, (PyObject *)cell) < 0) {
            failed = 1;
            break;
        }
    }
    if (failed || done < count) {
        /* None is put: these are the last places. */
        while (done-- > 0) {
            Key key;
            Py_ssize_t place = table->end - 1;
            key_of_holder(table->holders[place], &key);
            take_out(table, find_slot(table, &key, table->hashes[place]));
        }
        Py_DECREF(cells);
        if (failed)
            return NULL;
        Py_RETURN_FALSE;
    }
    Py_DECREF(cells);
    Py_RETURN_TRUE;
}

static void
no_such_key(PyObject *key)
{
    PyErr_SetObject(PyExc_KeyError, key);
}

static PyObject *
table_drop(Table *table, PyObject *object)
{
    Cell *cell = checked(object);
    Key key;
    if (cell == NULL || !key_for_table(cell, &key))
        return NULL;
    Py_ssize_t slot = find_slot(table, &key, hash_key(&key));
    if (slot < 0) {
        PyObject *text = cell_key(cell, NULL);
        if (text != NULL)
            no_such_key(text);
        Py_XDECREF(text);
        return NULL;
    }
    Py_ssize_t place = table->index[slot];
    PyObject *held = table->holders[place];
    if (is_cell(held)) {
        take_out(table, slot);
        Py_RETURN_NONE;
    }
    if (PyDict_DelItem(held, replica_of(cell)) < 0)
        return NULL;
    if (PyDict_Size(held) == 1) {
        Py_ssize_t at = 0;
        PyObject *replica, *last;
        PyDict_Next(held, &at, &replica, &last);
        set_holder(table, place, last);
    }
    Py_RETURN_NONE;
}

/* The cell of a row under a key, borrowed; NULL: there is none, or an error. */
static PyObject *
held_by(Table *table, const Key *key, PyObject *replica)
{
    Py_ssize_t place = find_place(table, key);
    if (place < 0)
        return NULL;
    PyObject *held = table->holders[place];
    if (!is_cell(held))
        return PyDict_GetItemWithError(held, replica);
    return same_replica(replica_of((Cell *)held), replica) == 1 ? held : NULL;
}

static PyObject *
table_of(Table *table, PyObject *arguments)
{
    PyObject *object, *replica;
    Key key;
    if (!PyArg_ParseTuple(arguments, "OO", &object, &replica))
        return NULL;
    PyObject *cell = key_of_object(object, &key) ? held_by(table, &key, replica) : NULL;
    if (cell == NULL && PyErr_Occurred())
        return NULL;
    return Py_NewRef(cell == NULL ? Py_None : cell);
}

static PyObject *
table_get(Table *table, PyObject *arguments)
{
    PyObject *object, *missing = Py_None;
    Key key;
    if (!PyArg_ParseTuple(arguments, "O|O", &object, &missing))
        return NULL;
    Py_ssize_t place = key_of_object(object, &key) ? find_place(table, &key) : -1;
    return Py_NewRef(place < 0 ? missing : table->holders[place]);
}

static PyObject *
table_subscript(Table *table, PyObject *object)
{
    Key key;
    Py_ssize_t place = key_of_object(object, &key) ? find_place(table, &key) : -1;
    if (place < 0) {
        no_such_key(object);
        return NULL;
    }
    return Py_NewRef(table->holders[place]);
}

/* A key of a cell or of a dict of cells, which is the key that it is set under. */
static int
table_assign(Table *table, PyObject *object, PyObject *holder)
{
    Key key, own;
    int known = key_of_object(object, &key);
    uint32_t hash = known ? hash_key(&key) : 0;
    Py_ssize_t slot = known ? find_slot(table, &key, hash) : -1;
    if (holder == NULL) {
        if (slot < 0)
            no_such_key(object);
        else
            take_out(table, slot);
        return slot < 0 ? -1 : 0;
    }
    if (!(is_cell(holder) || PyDict_Check(holder)) || !known || !key_of_holder(holder, &own) || !same_key(&key, &own)) {
        PyErr_SetString(PyExc_ValueError, "a table holds cells, and dicts of cells, under their own key");
        return -1;
    }
    if (slot < 0)
        return append(table, hash, holder);
    set_holder(table, table->index[slot], holder);
    return 0;
}

static int
table_contains(Table *table, PyObject *object)
{
    Key key;
    return key_of_object(object, &key) && find_place(table, &key) >= 0;
}

static Py_ssize_t
table_length(Table *table)
{
    return table->used;
}

static PyObject *
table_clear(Table *table, PyObject *Py_UNUSED(nothing))
{
    PyObject **holders = table->holders;
    Py_ssize_t end = table->end;
    PyMem_Free(table->hashes);
    PyMem_Free(table->index);
    table->holders = NULL;
    table->hashes = NULL;
    table->index = NULL;
    table->slots = table->taken = table->room = table->end = table->used = 0;
    for (Py_ssize_t place = 0; place < end; place++)
        Py_XDECREF(holders[place]);
    PyMem_Free(holders);
    Py_RETURN_NONE;
}

static PyObject *
table_copy(Table *table, PyObject *Py_UNUSED(nothing))
{
    Table *twin = (Table *)PyType_GenericAlloc(table_type, 0);
    if (twin == NULL || make_room(twin, table->used) < 0)
        goto failed;
    for (Py_ssize_t place = 0; place < table->end; place++) {
        PyObject *holder = table->holders[place];
        if (holder == NULL)
            continue;
        holder = is_cell(holder) ? Py_NewRef(holder) : PyDict_Copy(holder);
        if (holder == NULL || append(twin, table->hashes[place], holder) < 0) {
            Py_XDECREF(holder);
            goto failed;
        }
        Py_DECREF(holder);
    }
    return (PyObject *)twin;
failed:
    Py_XDECREF((PyObject *)twin);
    return NULL;
}

static PyObject *
places_of(Table *table, char what)
{
    Places *places = PyObject_New(Places, places_type);
    if (places == NULL)
        return NULL;
    places->table = (Table *)Py_NewRef((PyObject *)table);
    places->place = 0;
    places->used = table->used;
    places->what = what;
    return (PyObject *)places;
}

static PyObject *
table_keys(Table *table, PyObject *Py_UNUSED(nothing))
{
    return places_of(table, 'k');
}

static PyObject *
table_values(Table *table, PyObject *Py_UNUSED(nothing))
{
    return places_of(table, 'v');
}

static PyObject *
table_items(Table *table, PyObject *Py_UNUSED(nothing))
{
    return places_of(table, 'i');
}

static PyObject *
table_iter(Table *table)
{
    return places_of(table, 'k');
}

static PyObject *
table_reduce(Table *table, PyObject *Py_UNUSED(nothing))
{
    PyObject *items = places_of(table, 'i');
    return items == NULL ? NULL : Py_BuildValue("O()OON", table_type, Py_None, Py_None, items);
}

static void
table_dealloc(Table *table)
{
    PyTypeObject *type = Py_TYPE((PyObject *)table);
    Py_XDECREF(table_clear(table, NULL));
    PyObject_Free(table);
    Py_DECREF((PyObject *)type);
}

static void
places_dealloc(Places *places)
{
    PyTypeObject *type = Py_TYPE((PyObject *)places);
    Py_DECREF((PyObject *)places->table);
    PyObject_Free(places);
    Py_DECREF((PyObject *)type);
}

static PyObject *
key_object(PyObject *holder)
{
    Py_ssize_t at = 0;
    PyObject *replica;
    if (!is_cell(holder) && !PyDict_Next(holder, &at, &replica, &holder))
        return NULL;
    return cell_key((Cell *)holder, NULL);
}

static PyObject *
places_next(Places *places)
{
    Table *table = places->table;
    if (table->used != places->used) {
        PyErr_SetString(PyExc_RuntimeError, "table changed size during iteration");
        return NULL;
    }
    while (places->place < table->end) {
        PyObject *holder = table->holders[places->place++];
        Key ignored;
        if (holder == NULL || !key_of_holder(holder, &ignored))
            continue;
        if (places->what == 'v')
            return Py_NewRef(holder);
        PyObject *key = key_object(holder);
        if (places->what == 'k' || key == NULL)
            return key;
        return Py_BuildValue("NO", key, holder);
    }
    return NULL;
}

static PyMethodDef table_methods[] = {
    {"put", (PyCFunction)table_put, METH_O, NULL},
    {"put_first", (PyCFunction)table_put_first, METH_O, NULL},
    {"put_new", (PyCFunction)table_put_new, METH_O, NULL},
    {"drop", (PyCFunction)table_drop, METH_O, NULL},
    {"of", (PyCFunction)table_of, METH_VARARGS, NULL},
    {"get", (PyCFunction)table_get, METH_VARARGS, NULL},
    {"keys", (PyCFunction)table_keys, METH_NOARGS, NULL},
    {"values", (PyCFunction)table_values, METH_NOARGS, NULL},
    {"items", (PyCFunction)table_items, METH_NOARGS, NULL},
    {"clear", (PyCFunction)table_clear, METH_NOARGS, NULL},
    {"copy", (PyCFunction)table_copy, METH_NOARGS, NULL},
    {"__reduce__", (PyCFunction)table_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot table_slots[] = {
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, table_dealloc},
    {Py_tp_iter, table_iter},
    {Py_tp_methods, table_methods},
    {Py_mp_length, table_length},
    {Py_mp_subscript, table_subscript},
    {Py_mp_ass_subscript, table_assign},
    {Py_sq_contains, table_contains},
    {Py_tp_doc, "The standing cells of a kind by key; see `pure_cells.Table`."},
    {0, NULL},
};

static PyType_Spec table_spec = {"constraint_crdt.crdt._cells.Table", sizeof(Table), 0, Py_TPFLAGS_DEFAULT, table_slots};

static PyType_Slot places_slots[] = {
    {Py_tp_dealloc, places_dealloc},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, places_next},
    {0, NULL},
};

static PyType_Spec places_spec = {
    "constraint_crdt.crdt._cells.Places", sizeof(Places), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, places_slots,
};

/* --- reading msgpack ---------------------------------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *at;
    const uint8_t *end;
} Input;

static int
take_size(Input *input, int bytes, uint64_t *size)
{
    if (input->end - input->at < bytes)
        return 0;
    for (*size = 0; bytes > 0; bytes--)
        *size = *size << 8 | *input->at++;
    return 1;
}

static int
skip_bytes(Input *input, uint64_t size)
{
    if ((uint64_t)(input->end - input->at) < size)
        return 0;
    input->at += size;
    return 1;
}

/* Skip an element. 0: it is cut, or nested deeper than any cell may be. */
static int
skip(Input *input, int depth)
{
    if (input->at >= input->end || depth > MAX_DEPTH)
        return 0;
    uint8_t head = *input->at++;
    uint64_t size = 0, items = 0;
    if (head < 0x80 || head >= 0xe0 || head == 0xc0 || head == 0xc2 || head == 0xc3)
        return 1;
    if (head >> 5 == 5)
        return skip_bytes(input, head & 0x1f);
    if (head >> 4 == 9)
        items = head & 0x0f;
    else if (head >> 4 == 8)
        items = 2 * (head & 0x0f);
    else
        switch (head) {
        case 0xc4: case 0xd9: return take_size(input, 1, &size) && skip_bytes(input, size);
        case 0xc5: case 0xda: return take_size(input, 2, &size) && skip_bytes(input, size);
        case 0xc6: case 0xdb: return take_size(input, 4, &size) && skip_bytes(input, size);
        case 0xc7: return take_size(input, 1, &size) && skip_bytes(input, size + 1);
        case 0xc8: return take_size(input, 2, &size) && skip_bytes(input, size + 1);
        case 0xc9: return take_size(input, 4, &size) && skip_bytes(input, size + 1);
        case 0xcc: case 0xd0: return skip_bytes(input, 1);
        case 0xcd: case 0xd1: case 0xd4: return skip_bytes(input, 2);
        case 0xd5: return skip_bytes(input, 3);
        case 0xca: case 0xce: case 0xd2: return skip_bytes(input, 4);
        case 0xd6: return skip_bytes(input, 5);
        case 0xcb: case 0xcf: case 0xd3: return skip_bytes(input, 8);
        case 0xd7: return skip_bytes(input, 9);
        case 0xd8: return skip_bytes(input, 17);
        case 0xdc: if (!take_size(input, 2, &items)) return 0; break;
        case 0xdd: if (!take_size(input, 4, &items)) return 0; break;
        case 0xde: if (!take_size(input, 2, &items)) return 0; items *= 2; break;
        case 0xdf: if (!take_size(input, 4, &items)) return 0; items *= 2; break;
        default: return 0;
        }
    for (; items; items--)
        if (!skip(input, depth + 1))
            return 0;
    return 1;
}

/* Valid UTF-8 as Python decodes it: no surrogates, no longer form than needed, nothing beyond U+10FFFF. */
static int
is_utf8(const uint8_t *at, const uint8_t *end)
{
    while (at < end) {
        if (end - at >= 8 && !(load_little(at) & 0x8080808080808080ULL)) {
            at += 8;
            continue;
        }
        if (*at < 0x80) {
            at++;
            continue;
        }
        int more = *at >= 0xf0 ? 3 : *at >= 0xe0 ? 2 : 1;
        if (*at < 0xc2 || *at > 0xf4 || end - at <= more)
            return 0;
        if ((*at == 0xe0 && at[1] < 0xa0) || (*at == 0xed && at[1] > 0x9f) || (*at == 0xf0 && at[1] < 0x90) ||
            (*at == 0xf4 && at[1] > 0x8f))
            return 0;
        for (at++; more > 0; more--, at++)
            if (*at >> 6 != 2)
                return 0;
    }
    return 1;
}

/* Take a text. 0: another element, or a text in an unusual form. */
static int
take_text(Input *input, const uint8_t **text, Py_ssize_t *size)
{
    uint64_t length;
    if (input->at >= input->end)
        return 0;
    uint8_t head = *input->at++;
    if (head >> 5 == 5)
        length = head & 0x1f;
    else if (!(head == 0xd9 && take_size(input, 1, &length)) && !(head == 0xda && take_size(input, 2, &length)))
        return 0;
    *text = input->at;
    *size = (Py_ssize_t)length;
    return skip_bytes(input, length) && is_utf8(*text, input->at);
}

static int
take_nil(Input *input)
{
    if (input->at < input->end && *input->at == 0xc0) {
        input->at++;
        return 1;
    }
    return 0;
}

static int
take_text_or_nil(Input *input)
{
    const uint8_t *text;
    Py_ssize_t size;
    return take_nil(input) || take_text(input, &text, &size);
}

/* Take a number from 0 to MAX_COUNT. */
static int
take_number(Input *input, uint64_t *number)
{
    if (input->at >= input->end)
        return 0;
    uint8_t head = *input->at++;
    if (head < 0x80) {
        *number = head;
        return 1;
    }
    if (head < 0xcc || head > 0xcf)
        return 0;
    return take_size(input, 1 << (head - 0xcc), number) && *number <= (uint64_t)MAX_COUNT;
}

static int
take_number_or_nil(Input *input)
{
    uint64_t number;
    return take_nil(input) || take_number(input, &number);
}

/* Take the header of a short array. */
static int
take_array(Input *input, int *items)
{
    if (input->at >= input->end || *input->at >> 4 != 9)
        return 0;
    *items = *input->at++ & 0x0f;
    return 1;
}

/* The labels of a definition: pairs in ascending order of their keys. */
static int
take_labels(Input *input)
{
    int pairs, items;
    const uint8_t *last = NULL;
    Py_ssize_t last_size = 0;
    if (!take_array(input, &pairs))
        return 0;
    for (; pairs > 0; pairs--) {
        const uint8_t *key, *value;
        Py_ssize_t key_size, value_size;
        if (!take_array(input, &items) || items != 2 || !take_text(input, &key, &key_size) || !take_text(input, &value, &value_size))
            return 0;
        if (!key_size || key_size > ID_BYTES || !value_size || value_size > ID_BYTES)
            return 0;
        if (last != NULL) {
            int order = memcmp(last, key, (size_t)(last_size < key_size ? last_size : key_size));
            if (order > 0 || (order == 0 && last_size >= key_size))
                return 0;
        }
        last = key, last_size = key_size;
    }
    return 1;
}

/* A text that may serve as an id. */
static int
take_id(Input *input)
{
    const uint8_t *text;
    Py_ssize_t size;
    return take_text(input, &text, &size) && size && size <= ID_BYTES;
}

/* The requirements of a selector beyond equality. */
static int
take_requirements(Input *input)
{
    int requirements, items, values = 0;
    uint64_t operator;
    if (!take_array(input, &requirements))
        return 0;
    for (; requirements > 0; requirements--) {
        if (!take_array(input, &items) || items < 2 || items > 3 || !take_id(input) || !take_number(input, &operator))
            return 0;
        if (items == 3 && !take_array(input, &values))
            return 0;
        for (; items == 3 && values > 0; values--)
            if (!take_id(input))
                return 0;
    }
    return 1;
}

/* The fields of a definition of a known meaning version. */
static int
take_fields(Input *input, uint64_t meaning)
{
    int items;
    uint64_t number;
    if (!take_array(input, &items) || items > (meaning == 1 ? 5 : meaning == 2 ? 6 : 9))
        return 0;
    if ((items > 0 && !take_number(input, &number)) || (items > 1 && !take_number(input, &number)))
        return 0;
    if ((items > 2 && !take_text_or_nil(input)) || (items > 3 && !take_number(input, &number)))
        return 0;
    if (items > 4 && !take_nil(input) && !(take_number(input, &number) && number > 0))
        return 0;
    if ((items > 5 && !take_number(input, &number)) || (items > 6 && !take_requirements(input)))
        return 0;
    return items <= 7 || (take_number(input, &number) && (items == 8 || take_nil(input) || take_id(input)));
}

/* The value of an ADD cell: see `definition.py`. */
static int
take_definition(Input *input, uint8_t *endless)
{
    int items;
    uint64_t number;
    *endless = 1;
    if (take_nil(input))
        return 1;
    if (!take_array(input, &items) || items > 8 || items == 7)
        return 0;
    if ((items > 0 && !take_text_or_nil(input)) || (items > 1 && !take_number(input, &number)))
        return 0;
    if ((items > 2 && !take_text_or_nil(input)) || (items > 3 && !take_labels(input)))
        return 0;
    *endless = items <= 4 || (input->at < input->end && *input->at == 0xc0);
    if ((items > 4 && !take_number_or_nil(input)) || (items > 5 && !take_number_or_nil(input)))
        return 0;
    return items <= 6 || (take_number(input, &number) && number >= 1 && number <= MEANING && take_fields(input, number));
}

/* The value of a COUNTS cell: see `counters.py`. */
static int
take_counts(Input *input, uint64_t *satisfied, uint64_t *violated)
{
    int items;
    *violated = 0;
    if (!take_array(input, &items))
        return take_number(input, satisfied);
    return items == 2 && take_number(input, satisfied) && take_number(input, violated);
}

/* A cell that is surely well-formed; NULL without an error: `read_cell` in Python is to decide. The input then is where it was. */
static Cell *
take_cell(Input *input)
{
    Input start = *input;
    const uint8_t *key;
    Py_ssize_t key_size;
    uint8_t endless = 1;
    int parts;
    if (!take_array(input, &parts) || parts < 2 || parts > 3 || input->at >= input->end)
        goto other;
    int kind = *input->at++;
    if ((kind != ADD && kind != COUNTS && kind != SIGNATURE) || !take_text(input, &key, &key_size) || key_size > ID_BYTES)
        goto other;
    if (kind == SIGNATURE) {
        if (parts != 3 || key_size || input->end - input->at < 2 + SIGNATURE_BYTES || memcmp(input->at, "\xc4\x40", 2) != 0)
            goto other;
        input->at += 2 + SIGNATURE_BYTES;
    } else if (kind == ADD) {
        if (!key_size || (parts == 3 && !take_definition(input, &endless)))
            goto other;
    } else {
        uint64_t satisfied, violated;
        if (parts != 3 || !take_counts(input, &satisfied, &violated))
            goto other;
    }
    if (input->at - start.at > CELL_BYTES)
        goto other;
    Cell *cell = new_cell(start.at, input->at - start.at, kind);
    if (cell != NULL) {
        cell->key_at = (uint16_t)(key - start.at);
        cell->key_size = (uint16_t)key_size;
        cell->endless = endless;
    }
    return cell;
other:
    *input = start;
    return NULL;
}

static PyObject *
read_cells(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *raw, *read_cell, *read_all, *cells = NULL;
    if (!PyArg_ParseTuple(arguments, "OOO", &raw, &read_cell, &read_all))
        return NULL;
    Py_buffer buffer;
    if (PyObject_GetBuffer(raw, &buffer, PyBUF_SIMPLE) < 0)
        return NULL;
    Input input = {buffer.buf, (const uint8_t *)buffer.buf + buffer.len};
    uint64_t count = 0;
    int items, good = 1;
    if (take_array(&input, &items))
        count = (uint64_t)items;
    else if (input.at < input.end && *input.at == 0xdc)
        good = skip_bytes(&input, 1) && take_size(&input, 2, &count);
    else if (input.at < input.end && *input.at == 0xdd)
        good = skip_bytes(&input, 1) && take_size(&input, 4, &count);
    else
        good = 0;
    if (good && count <= (uint64_t)(input.end - input.at)) { /* a cell has a byte or more */
        cells = PyTuple_New((Py_ssize_t)count); /* which the collector leaves alone once it saw that it can be in no cycle */
        if (cells == NULL)
            goto failed;
        for (Py_ssize_t place = 0; good && place < (Py_ssize_t)count; place++) {
            PyObject *cell = (PyObject *)take_cell(&input);
            if (cell == NULL && !PyErr_Occurred()) {
                const uint8_t *start = input.at;
                good = skip(&input, 0);
                if (!good)
                    break;
                PyObject *data = PyBytes_FromStringAndSize((const char *)start, input.at - start);
                cell = data == NULL ? NULL : PyObject_CallFunctionObjArgs(read_cell, data, NULL);
                Py_XDECREF(data);
            }
            if (cell == NULL)
                goto failed;
            PyTuple_SetItem(cells, place, cell);
            if (place % GIVES_WAY == GIVES_WAY - 1) { /* to the event loop, where a thread reads a large message */
                PyThreadState *thread = PyEval_SaveThread();
                PyEval_RestoreThread(thread);
            }
        }
    } else {
        good = 0;
    }
    if (!good || input.at != input.end) { /* not an array of elements: an error that Python words */
        Py_XDECREF(cells);
        cells = PyObject_CallFunctionObjArgs(read_all, raw, NULL);
    }
    PyBuffer_Release(&buffer);
    return cells;
failed:
    Py_XDECREF(cells);
    PyBuffer_Release(&buffer);
    return NULL;
}

/* --- the loops ---------------------------------------------------------------------------------------------------------------- */

static PyObject *
join_cells(PyObject *Py_UNUSED(module), PyObject *sequence)
{
    Py_ssize_t count, size;
    PyObject *cells = cells_of(sequence, &count), *joined = NULL;
    if (cells == NULL)
        return NULL;
    const uint8_t *data;
    Py_ssize_t total = count < 16 ? 1 : count < 1 << 16 ? 3 : 5;
    Py_ssize_t head = total;
    for (Py_ssize_t place = 0; place < count; place++) {
        Cell *cell = cell_at(cells, place);
        if (cell == NULL)
            goto done;
        bytes_of(cell, &data, &size);
        total += size;
    }
    joined = PyBytes_FromStringAndSize(NULL, total);
    if (joined == NULL)
        goto done;
    uint8_t *to = (uint8_t *)PyBytes_AsString(joined);
    if (head == 1) {
        *to++ = (uint8_t)(0x90 | count);
    } else {
        *to++ = head == 3 ? 0xdc : 0xdd;
        for (Py_ssize_t byte = head - 2; byte >= 0; byte--)
            *to++ = (uint8_t)(count >> 8 * byte);
    }
    for (Py_ssize_t place = 0; place < count; place++) {
        bytes_of(cell_at(cells, place), &data, &size);
        memcpy(to, data, (size_t)size);
        to += size;
    }
done:
    Py_DECREF(cells);
    return joined;
}

static int
append_number(PyObject *list, long long value)
{
    PyObject *number = PyLong_FromLongLong(value);
    int failed = number == NULL || PyList_Append(list, number) < 0;
    Py_XDECREF(number);
    return !failed;
}

static PyObject *
gaps_of(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *sequence;
    long long above;
    Py_ssize_t count;
    if (!PyArg_ParseTuple(arguments, "OL", &sequence, &above))
        return NULL;
    PyObject *cells = cells_of(sequence, &count), *gaps = cells == NULL ? NULL : PyList_New(0);
    if (gaps == NULL)
        goto failed;
    if (count) {
        Cell *first = cell_at(cells, 0);
        if (first == NULL)
            goto failed;
        if (above - first->seq + 1 == count)
            goto done;
    }
    long long last = -1, repeats = 0;
    above++;
    for (Py_ssize_t place = count - 1; place >= 0; place--) {
        Cell *cell = cell_at(cells, place);
        if (cell == NULL)
            goto failed;
        long long gap = above - cell->seq - 1;
        above = cell->seq;
        if (place < count - 1 && gap == last) {
            repeats++;
            continue;
        }
        if ((repeats && !append_number(gaps, -repeats)) || !append_number(gaps, gap))
            goto failed;
        last = gap;
        repeats = 0;
    }
    if (repeats && !append_number(gaps, -repeats))
        goto failed;
done:
    Py_DECREF(cells);
    return gaps;
failed:
    Py_XDECREF(cells);
    Py_XDECREF(gaps);
    return NULL;
}

/* Bind from the last cell to the first, and first only count down, so that no cell is bound where one does not fit. */
static PyObject *
bind_cells(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *sequence, *replica, *gaps_sequence;
    long long lo, hi;
    Py_ssize_t count, gap_count;
    if (!PyArg_ParseTuple(arguments, "OOLLO", &sequence, &replica, &lo, &hi, &gaps_sequence))
        return NULL;
    PyObject *cells = cells_of(sequence, &count);
    PyObject *gaps = cells == NULL ? NULL : cells_of(gaps_sequence, &gap_count);
    if (gaps == NULL) {
        Py_XDECREF(cells);
        return NULL;
    }
    int fits = 1, failed = 0;
    for (int round = 0; round < 2 && fits && !failed; round++) {
        uint64_t above = (uint64_t)hi + 1;
        long long gap = 0, repeats = 0;
        Py_ssize_t next = 0;
        for (Py_ssize_t place = count - 1; place >= 0; place--) {
            if (repeats) {
                repeats--;
            } else if (next < gap_count) {
                PyObject *number = PyList_Check(gaps) ? PyList_GetItem(gaps, next) : PyTuple_GetItem(gaps, next);
                int overflow;
                long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
                if (PyErr_Occurred()) {
                    failed = 1;
                    break;
                }
                next++;
                if (overflow) {
                    fits = 0;
                    break;
                }
                if (value < 0)
                    repeats = -(value + 1);
                else
                    gap = value;
            }
            if ((uint64_t)gap >= above || (int64_t)(above - (uint64_t)gap - 1) <= lo) {
                fits = 0;
                break;
            }
            above -= (uint64_t)gap + 1;
            Cell *cell = cell_at(cells, place);
            if (cell == NULL) {
                failed = 1;
                break;
            }
            if (!round)
                continue;
            cell->seq = (int64_t)above;
            PyObject *before = cell->replica;
            cell->replica = Py_NewRef(replica);
            Py_XDECREF(before);
            if (cell->given != NULL && !PyUnicode_Check(PyTuple_GetItem(cell->given, 0))) {
                PyObject *seq = PyLong_FromLongLong(cell->seq);
                failed = seq == NULL || cell_set_key(cell, seq, NULL) < 0;
                Py_XDECREF(seq);
                if (failed)
                    break;
            }
        }
    }
    Py_DECREF(cells);
    Py_DECREF(gaps);
    return failed ? NULL : PyBool_FromLong(fits);
}

static void
hash_cell(const Hasher *row, Cell *cell)
{
    const uint8_t *data;
    Py_ssize_t size;
    uint8_t seq[8];
    Hasher hasher = *row;
    store_big(seq, (uint64_t)cell->seq);
    hasher_update(&hasher, seq, sizeof seq);
    bytes_of(cell, &data, &size);
    hasher_update(&hasher, data, size);
    hasher_end(&hasher, cell->digest, DIGEST_BYTES);
}

#ifdef HAVE_LANES
/* Cells of a row whose hash takes one block beside the key. Each block begins with what the row begins with. */
typedef struct {
    Cell *cells[LANES];
    uint64_t counted[LANES];
    Py_ssize_t used[LANES];      /* bytes of a block that are not zero */
    uint8_t blocks[LANES][BLOCK];
    int filled;
} Group;

/* Add a cell, and hash the group when it is full. 0 for a cell that is too long. */
static int
group_add(Group *group, const Hasher *row, Cell *cell)
{
    const uint8_t *data;
    Py_ssize_t size, at = row->filled, end;
    bytes_of(cell, &data, &size);
    end = at + 8 + size;
    if (end > BLOCK)
        return 0;
    int lane = group->filled++;
    uint8_t *block = group->blocks[lane];
    store_big(block + at, (uint64_t)cell->seq);
    memcpy(block + at + 8, data, (size_t)size);
    if (group->used[lane] > end)
        memset(block + end, 0, (size_t)(group->used[lane] - end));
    group->used[lane] = end;
    group->cells[lane] = cell;
    group->counted[lane] = row->counted + (uint64_t)end;
    if (group->filled == LANES) {
        const uint8_t *blocks[LANES];
        uint8_t out[LANES][32];
        for (lane = 0; lane < LANES; lane++)
            blocks[lane] = group->blocks[lane];
        hash_lanes(row->h, blocks, group->counted, 1, out);
        for (lane = 0; lane < LANES; lane++)
            memcpy(group->cells[lane]->digest, out[lane], DIGEST_BYTES);
        group->filled = 0;
    }
    return 1;
}
#endif

static PyObject *
fill_digests(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *sequence;
    const char *key, *prefix;
    Py_ssize_t key_size, prefix_size, count;
    if (!PyArg_ParseTuple(arguments, "Oy#y#", &sequence, &key, &key_size, &prefix, &prefix_size))
        return NULL;
    if (key_size != 32) {
        PyErr_SetString(PyExc_ValueError, "the key of a digest has 32 bytes");
        return NULL;
    }
    PyObject *cells = cells_of(sequence, &count);
    if (cells == NULL)
        return NULL;
    Hasher row;
    hasher_begin(&row, DIGEST_BYTES, "cell", 4, key, key_size);
    hasher_update(&row, (const uint8_t *)prefix, prefix_size);
#ifdef HAVE_LANES
    Group group = {0};
    int lanes = HAVE_LANES && prefix_size < BLOCK;
    hasher_pad(&row);
    for (int lane = 0; lane < LANES; lane++)
        memcpy(group.blocks[lane], row.block, BLOCK);
#endif
    for (Py_ssize_t place = 0; place < count; place++) {
        Cell *cell = cell_at(cells, place);
        if (cell == NULL) {
            Py_DECREF(cells);
            return NULL;
        }
        if (cell->hashed)
            continue;
        cell->hashed = 1;
#ifdef HAVE_LANES
        if (lanes && group_add(&group, &row, cell))
            continue;
#endif
        hash_cell(&row, cell);
    }
#ifdef HAVE_LANES
    for (int lane = 0; lane < group.filled; lane++)
        hash_cell(&row, group.cells[lane]);
#endif
    Py_DECREF(cells);
    Py_RETURN_NONE;
}

static PyObject *
blake(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    const char *data, *person, *key = "";
    Py_ssize_t data_size, person_size, key_size = 0;
    int size;
    if (!PyArg_ParseTuple(arguments, "y#iy#|y#", &data, &data_size, &size, &person, &person_size, &key, &key_size))
        return NULL;
    if (size < 1 || size > MOST_HASH_BYTES || person_size > PERSON_BYTES || key_size > MOST_HASH_BYTES) {
        PyErr_SetString(PyExc_ValueError, "a hash, or its key or purpose, is too long");
        return NULL;
    }
    Hasher hasher;
    uint8_t digest[MOST_HASH_BYTES];
    hasher_begin(&hasher, size, person, person_size, key, key_size);
    hasher_update(&hasher, (const uint8_t *)data, data_size);
    hasher_end(&hasher, digest, size);
    return PyBytes_FromStringAndSize((const char *)digest, size);
}

static int
put_hash(PyObject *hashes, long long place, const uint8_t *hash, int size)
{
    PyObject *key = PyLong_FromLongLong(place), *value = PyBytes_FromStringAndSize((const char *)hash, size);
    int failed = key == NULL || value == NULL || PyDict_SetItem(hashes, key, value) < 0;
    Py_XDECREF(key);
    Py_XDECREF(value);
    return !failed;
}

#define WAITING 4

/* The hashes of blocks of seqs, a few at a time where that is faster. They are put in the order of their blocks. */
typedef struct {
    PyObject *found;
    const Hasher *start;
    int size;
    int filled;              /* blocks that wait */
    long long places[WAITING];
    uint8_t data[WAITING][2 * BLOCK];
} Blocks;

static int
put_block(Blocks *blocks, long long place, const uint8_t *data, Py_ssize_t size)
{
    uint8_t hash[DIGEST_BYTES];
    Hasher hasher = *blocks->start;
    hasher_update(&hasher, data, size);
    hasher_end(&hasher, hash, blocks->size);
    return put_hash(blocks->found, place, hash, blocks->size);
}

static int
put_waiting(Blocks *blocks)
{
    int good = 1;
#ifdef HAVE_LANES
    if (blocks->filled == LANES) {
        const uint8_t *data[LANES];
        uint64_t counted[LANES];
        uint8_t out[LANES][32];
        for (int lane = 0; lane < LANES; lane++)
            data[lane] = blocks->data[lane], counted[lane] = 2 * BLOCK;
        hash_lanes(blocks->start->h, data, counted, 2, out);
        for (int lane = 0; lane < LANES && good; lane++)
            good = put_hash(blocks->found, blocks->places[lane], out[lane], blocks->size);
        blocks->filled = 0;
    }
#endif
    for (int place = 0; place < blocks->filled && good; place++)
        good = put_block(blocks, blocks->places[place], blocks->data[place], 2 * BLOCK);
    blocks->filled = 0;
    return good;
}

/* The cells of a block of seqs follow each other, since cells are in ascending order. */
static PyObject *
hashes_of_blocks(PyObject *sequence, int left_out, long long fan, int size, const char *person, Py_ssize_t person_size)
{
    Py_ssize_t count;
    if (fan < 1 || size < 1 || size > DIGEST_BYTES || person_size > PERSON_BYTES) {
        PyErr_SetString(PyExc_ValueError, "the size of a block, of its hash or of its purpose is out of bounds");
        return NULL;
    }
    PyObject *cells = cells_of(sequence, &count), *found = cells == NULL ? NULL : PyDict_New();
    int good = found != NULL;
    Hasher start;
    hasher_begin(&start, size, person, person_size, "", 0);
    Blocks blocks = {.found = found, .start = &start, .size = size};
    for (Py_ssize_t place = 0; place < count && good;) {
        Cell *cell = cell_at(cells, place);
        if (cell == NULL) {
            good = 0;
            break;
        }
        long long block = cell->seq / fan;
        uint8_t *data = blocks.data[blocks.filled];
        Py_ssize_t held = 0;
        Hasher longer = start; /* for a block whose digests take more than two blocks of the hash */
        int is_longer = 0;
        do {
            if (cell->kind != left_out) {
                if (held + size > 2 * BLOCK) {
                    hasher_update(&longer, data, held);
                    held = 0;
                    is_longer = 1;
                }
                memcpy(data + held, cell->digest, (size_t)size);
                held += size;
            }
            cell = ++place < count ? cell_at(cells, place) : NULL;
        } while (cell != NULL && cell->seq / fan == block);
        if (cell == NULL && place < count) {
            good = 0;
        } else if (is_longer) {
            uint8_t hash[DIGEST_BYTES];
            hasher_update(&longer, data, held);
            hasher_end(&longer, hash, size);
            good = put_waiting(&blocks) && put_hash(found, block, hash, size);
        } else if (held == 2 * BLOCK) {
            blocks.places[blocks.filled++] = block;
            good = blocks.filled < WAITING || put_waiting(&blocks);
        } else if (held) {
            good = put_waiting(&blocks) && put_block(&blocks, block, data, held);
        }
    }
    good = good && put_waiting(&blocks);
    Py_XDECREF(cells);
    if (good)
        return found;
    Py_XDECREF(found);
    return NULL;
}

static PyObject *
hash_blocks(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *cells;
    const char *person;
    long long fan;
    int left_out, size;
    Py_ssize_t person_size;
    if (!PyArg_ParseTuple(arguments, "OiLiy#", &cells, &left_out, &fan, &size, &person, &person_size))
        return NULL;
    return hashes_of_blocks(cells, left_out, fan, size, person, person_size);
}

/* The places are in ascending order, so those below one place follow each other. */
static PyObject *
hash_level(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *below, *place, *part;
    const char *person;
    long long fan, parent = 0, next = 0;
    int size, open = 0, failed = 0;
    Py_ssize_t person_size, at = 0;
    static const uint8_t empty[DIGEST_BYTES];
    if (!PyArg_ParseTuple(arguments, "O!Liy#", &PyDict_Type, &below, &fan, &size, &person, &person_size))
        return NULL;
    if (fan < 1 || size < 1 || size > DIGEST_BYTES || person_size > PERSON_BYTES) {
        PyErr_SetString(PyExc_ValueError, "the size of a block, of its hash or of its purpose is out of bounds");
        return NULL;
    }
    PyObject *found = PyDict_New();
    Hasher start, hasher;
    hasher_begin(&start, size, person, person_size, "", 0);
    hasher = start;
    while (found != NULL && !failed) {
        int more = PyDict_Next(below, &at, &place, &part);
        long long number = more ? PyLong_AsLongLong(place) : 0;
        char *bytes = NULL;
        Py_ssize_t part_size = size;
        if (more && (PyErr_Occurred() || PyBytes_AsStringAndSize(part, &bytes, &part_size) < 0)) {
            failed = 1;
            break;
        }
        if (more && (number < 0 || part_size != size || (open && number < next))) {
            PyErr_SetString(PyExc_ValueError, "the hashes of a level are of one size, in ascending order of their places");
            failed = 1;
            break;
        }
        if (open && (!more || number / fan != parent)) {
            uint8_t digest[DIGEST_BYTES];
            for (; next < (parent + 1) * fan; next++)
                hasher_update(&hasher, empty, size);
            hasher_end(&hasher, digest, size);
            failed = !put_hash(found, parent, digest, size);
            open = 0;
        }
        if (!more)
            break;
        if (!open) {
            hasher = start;
            parent = number / fan;
            next = parent * fan;
            open = 1;
        }
        for (; next < number; next++)
            hasher_update(&hasher, empty, size);
        hasher_update(&hasher, (const uint8_t *)bytes, size);
        next++;
    }
    if (!failed)
        return found;
    Py_XDECREF(found);
    return NULL;
}

/* Copies the hash at a place, if there is one. 1: copied, 0: there is none, -1: an error. A hash of None counts as none. */
static int
copy_hash(PyObject *before, PyObject *changed, long long place, int size, uint8_t *target)
{
    PyObject *key = PyLong_FromLongLong(place);
    if (key == NULL)
        return -1;
    PyObject *hash = PyDict_GetItemWithError(changed, key);
    if (hash == NULL && !PyErr_Occurred())
        hash = PyDict_GetItemWithError(before, key);
    Py_DECREF(key);
    if (hash == NULL)
        return PyErr_Occurred() ? -1 : 0;
    if (hash == Py_None)
        return 0;
    char *bytes;
    Py_ssize_t held;
    if (PyBytes_AsStringAndSize(hash, &bytes, &held) < 0)
        return -1;
    if (held != size) {
        PyErr_SetString(PyExc_ValueError, "the hashes of a level are of one size");
        return -1;
    }
    memcpy(target, bytes, (size_t)size);
    return 1;
}

static PyObject *
hashes_above(PyObject *before, PyObject *changed, long long fan, int size, const char *person, Py_ssize_t person_size)
{
    PyObject *at, *ignored;
    int good = 1;
    Py_ssize_t next = 0;
    uint8_t data[2 * BLOCK];
    if (fan < 1 || fan > 2 * BLOCK || size < 1 || size > DIGEST_BYTES || fan * size > 2 * BLOCK || person_size > PERSON_BYTES) {
        PyErr_SetString(PyExc_ValueError, "the size of a block, of its hash or of its purpose is out of bounds");
        return NULL;
    }
    PyObject *found = PyDict_New();
    Hasher start;
    hasher_begin(&start, size, person, person_size, "", 0);
    good = found != NULL;
    while (good && PyDict_Next(changed, &next, &at, &ignored)) {
        long long place = PyLong_AsLongLong(at);
        if (place < 0 || place > INT64_MAX - fan) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "a place is out of bounds");
            good = 0;
            break;
        }
        long long parent = place / fan;
        PyObject *key = PyLong_FromLongLong(parent);
        PyObject *done = key == NULL ? NULL : PyDict_GetItemWithError(found, key);
        good = key != NULL && !PyErr_Occurred();
        int any = 0;
        if (good && done == NULL) {
            memset(data, 0, (size_t)(fan * size));
            for (long long child = 0; child < fan && good; child++) {
                int copied = copy_hash(before, changed, parent * fan + child, size, data + child * size);
                good = copied >= 0;
                any |= copied > 0;
            }
            if (good && any) {
                uint8_t digest[DIGEST_BYTES];
                Hasher hasher = start;
                hasher_update(&hasher, data, (Py_ssize_t)(fan * size));
                hasher_end(&hasher, digest, size);
                good = put_hash(found, parent, digest, size);
            } else if (good) {
                good = PyDict_SetItem(found, key, Py_None) == 0;
            }
        }
        Py_XDECREF(key);
    }
    if (good)
        return found;
    Py_XDECREF(found);
    return NULL;
}

static PyObject *
hash_above(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *before, *changed;
    const char *person;
    long long fan;
    int size;
    Py_ssize_t person_size;
    if (!PyArg_ParseTuple(arguments, "O!O!Liy#", &PyDict_Type, &before, &PyDict_Type, &changed, &fan, &size, &person, &person_size))
        return NULL;
    return hashes_above(before, changed, fan, size, person, person_size);
}

static PyObject *
hash_of_places(PyObject *before, PyObject *changed, int size, int wide, const char *person, Py_ssize_t person_size)
{
    if (size < 1 || size > DIGEST_BYTES || wide < 1 || wide > DIGEST_BYTES || person_size > PERSON_BYTES) {
        PyErr_SetString(PyExc_ValueError, "the size of a hash or of its purpose is out of bounds");
        return NULL;
    }
    PyObject *all = PyDict_Copy(before);
    PyObject *places = all == NULL || PyDict_Update(all, changed) < 0 ? NULL : PyDict_Keys(all);
    int good = places != NULL && PyList_Sort(places) == 0;
    Py_ssize_t count = good ? PyList_Size(places) : 0;
    Hasher hasher;
    hasher_begin(&hasher, wide, person, person_size, "", 0);
    for (Py_ssize_t at = 0; at < count && good; at++) {
        uint8_t data[8 + DIGEST_BYTES];
        long long place = PyLong_AsLongLong(PyList_GetItem(places, at));
        if (place < 0) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "a place is out of bounds");
            good = 0;
            break;
        }
        for (int byte = 0; byte < 8; byte++)
            data[byte] = (uint8_t)(place >> (56 - 8 * byte));
        int copied = copy_hash(all, all, place, size, data + 8);
        good = copied >= 0;
        if (copied > 0)
            hasher_update(&hasher, data, 8 + size);
    }
    Py_XDECREF(all);
    Py_XDECREF(places);
    if (!good)
        return NULL;
    uint8_t digest[DIGEST_BYTES];
    hasher_end(&hasher, digest, wide);
    return PyBytes_FromStringAndSize((const char *)digest, wide);
}

static PyObject *
hash_places(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *before, *changed;
    const char *person;
    int size, wide;
    Py_ssize_t person_size;
    if (!PyArg_ParseTuple(arguments, "O!O!iiy#", &PyDict_Type, &before, &PyDict_Type, &changed, &size, &wide, &person, &person_size))
        return NULL;
    return hash_of_places(before, changed, size, wide, person, person_size);
}

/* How many cells have a seq up to `seq`; -1: an error. From the end on in doubled steps, since most questions are about the end. */
static Py_ssize_t
position_of(PyObject *cells, Py_ssize_t count, long long seq)
{
    Py_ssize_t low = 0, high = count, step = 1;
    for (; step <= count; step *= 2) {
        Cell *cell = cell_at(cells, count - step);
        if (cell == NULL)
            return -1;
        if (cell->seq <= seq) {
            low = count - step + 1;
            break;
        }
        high = count - step;
    }
    while (low < high) {
        Py_ssize_t middle = low + (high - low) / 2;
        Cell *cell = cell_at(cells, middle);
        if (cell == NULL)
            return -1;
        if (cell->seq > seq)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Whether a container of seqs, or None, has a seq; -1: an error. */
static int
has_seq(PyObject *seqs, long long seq)
{
    if (seqs == Py_None)
        return 0;
    PyObject *number = PyLong_FromLongLong(seq);
    int found = number == NULL ? -1 : PySequence_Contains(seqs, number);
    Py_XDECREF(number);
    return found;
}

/* Appends the cells with lo < seq <= hi to a list, without those that either container of seqs has. */
static int
take_between(PyObject *taken, PyObject *cells, Py_ssize_t count, long long lo, long long hi, PyObject *without, PyObject *nor)
{
    Py_ssize_t place = position_of(cells, count, lo);
    if (place < 0)
        return 0;
    for (; place < count; place++) {
        Cell *cell = cell_at(cells, place);
        if (cell == NULL)
            return 0;
        if (cell->seq > hi)
            break;
        int left_out = has_seq(without, cell->seq);
        if (left_out == 0)
            left_out = has_seq(nor, cell->seq);
        if (left_out < 0 || (!left_out && PyList_Append(taken, (PyObject *)cell) < 0))
            return 0;
    }
    return 1;
}

static PyObject *
standing(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *sequence, *dropped;
    long long lo, hi;
    Py_ssize_t count;
    if (!PyArg_ParseTuple(arguments, "OLLO", &sequence, &lo, &hi, &dropped))
        return NULL;
    PyObject *cells = cells_of(sequence, &count), *taken = NULL;
    if (cells != NULL && dropped == Py_None && PyList_Check(cells)) {
        Py_ssize_t first = position_of(cells, count, lo), end = first < 0 ? -1 : position_of(cells, count, hi);
        taken = end < 0 ? NULL : PyList_GetSlice(cells, first, end);
    } else if (cells != NULL && (taken = PyList_New(0)) != NULL) {
        if (!take_between(taken, cells, count, lo, hi, dropped, Py_None))
            Py_CLEAR(taken);
    }
    Py_XDECREF(cells);
    return taken;
}

/* Notes the place of the block of a seq, unless it is known. */
static int
touch_block(PyObject *touched, long long seq, long long fan)
{
    PyObject *place = PyLong_FromLongLong(seq / fan);
    int good = place != NULL && (PyDict_GetItemWithError(touched, place) != NULL ||
                                 (!PyErr_Occurred() && PyDict_SetItem(touched, place, Py_None) == 0));
    Py_XDECREF(place);
    return good;
}

static int
touch_blocks(PyObject *touched, PyObject *news, Py_ssize_t new_count, PyObject *gone, int left_out, long long fan)
{
    for (Py_ssize_t at = 0; at < new_count; at++) {
        Cell *cell = cell_at(news, at);
        if (cell == NULL || (cell->kind != left_out && !touch_block(touched, cell->seq, fan)))
            return 0;
    }
    PyObject *seqs = PyObject_GetIter(gone), *seq;
    while (seqs != NULL && (seq = PyIter_Next(seqs)) != NULL) {
        long long number = PyLong_AsLongLong(seq);
        Py_DECREF(seq);
        if (PyErr_Occurred() || !touch_block(touched, number, fan))
            break;
    }
    Py_XDECREF(seqs);
    return !PyErr_Occurred();
}

static PyObject *
hash_path(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *old, *dropped, *new, *gone, *blocks, *levels, *persons;
    const char *person;
    int left_out, size, wide;
    long long fan;
    Py_ssize_t person_size, old_count = 0, new_count = 0;
    if (!PyArg_ParseTuple(arguments, "OOOOO!O!(iLiO!iy#)", &old, &dropped, &new, &gone, &PyDict_Type, &blocks, &PyList_Type, &levels,
                          &left_out, &fan, &size, &PyTuple_Type, &persons, &wide, &person, &person_size))
        return NULL;
    Py_ssize_t count = PyList_Size(levels);
    if (count < 1 || PyTuple_Size(persons) != count) {
        PyErr_SetString(PyExc_ValueError, "a tree has a purpose for each level");
        return NULL;
    }
    if (fan < 1) {
        PyErr_SetString(PyExc_ValueError, "the size of a block, of its hash or of its purpose is out of bounds");
        return NULL;
    }
    PyObject *cells = cells_of(old, &old_count), *news = cells_of(new, &new_count);
    PyObject *touched = PyDict_Copy(blocks), *lowest = PyDict_New(), *kept = PyList_New(0), *path = PyList_New(0);
    PyObject *places = NULL, *hashed = NULL, *root = NULL, *result = NULL;
    int good = cells != NULL && news != NULL && touched != NULL && lowest != NULL && kept != NULL && path != NULL &&
               touch_blocks(touched, news, new_count, gone, left_out, fan) && (places = PyDict_Keys(touched)) != NULL &&
               PyList_Sort(places) == 0;
    for (Py_ssize_t at = 0; good && at < PyList_Size(places); at++) {
        PyObject *key = PyList_GetItem(places, at), *known = PyDict_GetItemWithError(touched, key);
        long long place = PyLong_AsLongLong(key);
        if (known == NULL || PyErr_Occurred() || place < 0 || place > INT64_MAX / fan - 1) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "a place is out of bounds");
            good = 0;
            break;
        }
        long long lo = place * fan - 1, hi = lo + fan;
        good = PyDict_SetItem(lowest, key, known) == 0;
        if (good && known == Py_None)
            good = take_between(kept, cells, old_count, lo, hi, dropped, gone) &&
                   take_between(kept, news, new_count, lo, hi, Py_None, gone);
    }
    char *purpose;
    Py_ssize_t purpose_size;
    for (Py_ssize_t level = 0; good && level < count; level++) {
        good = PyBytes_AsStringAndSize(PyTuple_GetItem(persons, level), &purpose, &purpose_size) == 0;
        if (good && level == 0) {
            hashed = hashes_of_blocks(kept, left_out, fan, size, purpose, purpose_size);
            good = hashed != NULL && PyDict_Update(lowest, hashed) == 0 && PyList_Append(path, lowest) == 0;
        } else if (good) {
            PyObject *below = PyList_GetItem(levels, level - 1);
            PyObject *above = NULL;
            if (PyDict_Check(below))
                above = hashes_above(below, PyList_GetItem(path, level - 1), fan, size, purpose, purpose_size);
            else
                PyErr_SetString(PyExc_TypeError, "the hashes of a level are in a dict");
            good = above != NULL && PyList_Append(path, above) == 0;
            Py_XDECREF(above);
        }
    }
    if (good && !PyDict_Check(PyList_GetItem(levels, count - 1))) {
        PyErr_SetString(PyExc_TypeError, "the hashes of a level are in a dict");
        good = 0;
    }
    if (good)
        root = hash_of_places(PyList_GetItem(levels, count - 1), PyList_GetItem(path, count - 1), size, wide, person, person_size);
    if (root != NULL)
        result = PyTuple_Pack(2, path, root);
    Py_XDECREF(cells);
    Py_XDECREF(news);
    Py_XDECREF(touched);
    Py_XDECREF(lowest);
    Py_XDECREF(kept);
    Py_XDECREF(path);
    Py_XDECREF(places);
    Py_XDECREF(hashed);
    Py_XDECREF(root);
    return result;
}

static PyObject *
put_hashes(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *levels, *changes;
    if (!PyArg_ParseTuple(arguments, "O!O!", &PyList_Type, &levels, &PyList_Type, &changes))
        return NULL;
    Py_ssize_t count = PyList_Size(levels);
    if (PyList_Size(changes) != count) {
        PyErr_SetString(PyExc_ValueError, "each level has its changes");
        return NULL;
    }
    for (Py_ssize_t level = 0; level < count; level++) {
        PyObject *hashes = PyList_GetItem(levels, level), *changed = PyList_GetItem(changes, level), *place, *part;
        Py_ssize_t next = 0;
        while (PyDict_Next(changed, &next, &place, &part)) {
            if (part != Py_None) {
                if (PyDict_SetItem(hashes, place, part) < 0)
                    return NULL;
            } else if (PyDict_DelItem(hashes, place) < 0) {
                if (!PyErr_ExceptionMatches(PyExc_KeyError))
                    return NULL;
                PyErr_Clear();
            }
        }
    }
    Py_RETURN_NONE;
}

static PyObject *
superseded(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *tables, *sequence;
    int left_out;
    Py_ssize_t count;
    if (!PyArg_ParseTuple(arguments, "O!Oi", &PyDict_Type, &tables, &sequence, &left_out))
        return NULL;
    PyObject *cells = cells_of(sequence, &count), *seqs = cells == NULL ? NULL : PyList_New(0);
    int good = seqs != NULL;
    for (Py_ssize_t at = 0; good && at < count; at++) {
        Cell *cell = cell_at(cells, at);
        Key key;
        good = cell != NULL;
        if (!good || cell->kind == left_out || !key_of_cell(cell, &key) || key.text == NULL)
            continue;
        PyObject *kind = PyLong_FromLong(cell->kind);
        PyObject *table = kind == NULL ? NULL : PyDict_GetItemWithError(tables, kind);
        Py_XDECREF(kind);
        if (table == NULL) {
            good = !PyErr_Occurred();
            continue;
        }
        if (!Py_IS_TYPE(table, table_type)) {
            PyErr_SetString(PyExc_TypeError, "the tables hold something else");
            good = 0;
            continue;
        }
        PyObject *held = held_by((Table *)table, &key, replica_of(cell)); /* borrowed */
        good = held != NULL || !PyErr_Occurred();
        if (held != NULL) {
            PyObject *seq = PyLong_FromLongLong(((Cell *)held)->seq);
            good = seq != NULL && PyList_Append(seqs, seq) == 0;
            Py_XDECREF(seq);
        }
    }
    Py_XDECREF(cells);
    if (!good)
        Py_CLEAR(seqs);
    return seqs;
}

static PyObject *
all_hashed(PyObject *Py_UNUSED(module), PyObject *sequence)
{
    Py_ssize_t count, place = 0;
    PyObject *cells = cells_of(sequence, &count);
    if (cells == NULL)
        return NULL;
    Cell *cell = NULL;
    while (place < count && (cell = cell_at(cells, place)) != NULL && cell->hashed)
        place++;
    Py_DECREF(cells);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(place == count);
}

static PyObject *
sum_digests(PyObject *Py_UNUSED(module), PyObject *sequence)
{
    Py_ssize_t count;
    PyObject *cells = cells_of(sequence, &count);
    if (cells == NULL)
        return NULL;
    uint64_t sum[5] = {0};
    for (Py_ssize_t place = 0; place < count; place++) {
        Cell *cell = cell_at(cells, place);
        if (cell == NULL) {
            Py_DECREF(cells);
            return NULL;
        }
        add_digest(sum, cell->digest);
    }
    Py_DECREF(cells);
    uint8_t bytes[40];
    for (int i = 0; i < 5; i++)
        store_big(bytes + 8 * (4 - i), sum[i]);
    return number_of(bytes, sizeof bytes);
}

static PyObject *
deflate(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Py_buffer data;
    Py_ssize_t most;
    if (!PyArg_ParseTuple(arguments, "y*n", &data, &most))
        return NULL;
    uint8_t *out = most > 0 ? PyMem_Malloc((size_t)most) : NULL;
    size_t size = 0;
    if (out != NULL) {
        Py_BEGIN_ALLOW_THREADS
        size = deflate_bytes(data.buf, (size_t)data.len, out, (size_t)most);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    PyObject *packed = size ? PyBytes_FromStringAndSize((const char *)out, (Py_ssize_t)size) : Py_NewRef(Py_None);
    PyMem_Free(out);
    return packed;
}

static PyObject *
position(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *sequence;
    long long seq;
    Py_ssize_t count;
    if (!PyArg_ParseTuple(arguments, "OL", &sequence, &seq))
        return NULL;
    PyObject *cells = cells_of(sequence, &count);
    if (cells == NULL)
        return NULL;
    Py_ssize_t found = position_of(cells, count, seq);
    Py_DECREF(cells);
    return found < 0 ? NULL : PyLong_FromSsize_t(found);
}

static PyObject *
by_kind(PyObject *Py_UNUSED(module), PyObject *sequence)
{
    Py_ssize_t count, place;
    PyObject *lists[UINT8_MAX + 1] = {NULL}; /* borrowed from `found` */
    PyObject *cells = cells_of(sequence, &count), *found = cells == NULL ? NULL : PyDict_New();
    if (found == NULL)
        goto failed;
    for (place = 0; place < count; place++) {
        Cell *cell = cell_at(cells, place);
        if (cell == NULL)
            goto failed;
        PyObject *list = lists[cell->kind];
        if (list == NULL) {
            PyObject *kind = PyLong_FromLong(cell->kind);
            list = kind == NULL ? NULL : PyList_New(0);
            int failed = list == NULL || PyDict_SetItem(found, kind, list) < 0;
            Py_XDECREF(kind);
            Py_XDECREF(list);
            if (failed)
                goto failed;
            lists[cell->kind] = list;
        }
        if (PyList_Append(list, (PyObject *)cell) < 0)
            goto failed;
    }
    Py_DECREF(cells);
    return found;
failed:
    Py_XDECREF(cells);
    Py_XDECREF(found);
    return NULL;
}

static PyObject *
of_kinds(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *sequence;
    const char *kinds;
    Py_ssize_t kind_count, count;
    char wanted[UINT8_MAX + 1] = {0};
    if (!PyArg_ParseTuple(arguments, "Oy#", &sequence, &kinds, &kind_count))
        return NULL;
    for (Py_ssize_t place = 0; place < kind_count; place++)
        wanted[(uint8_t)kinds[place]] = 1;
    PyObject *cells = cells_of(sequence, &count), *found = cells == NULL ? NULL : PyList_New(0);
    if (found == NULL) {
        Py_XDECREF(cells);
        return NULL;
    }
    for (Py_ssize_t place = 0; place < count; place++) {
        Cell *cell = cell_at(cells, place);
        if (cell == NULL || (wanted[cell->kind] && PyList_Append(found, (PyObject *)cell) < 0)) {
            Py_DECREF(cells);
            Py_DECREF(found);
            return NULL;
        }
    }
    Py_DECREF(cells);
    return found;
}

/* The result of a function of `pure_cells` for a cell of an unusual form, or a damaged one. */
static PyObject *
ask_pure(const char *name, PyObject *argument)
{
    PyObject *function = imported("constraint_crdt.crdt.pure_cells", name);
    PyObject *result = function == NULL ? NULL : PyObject_CallFunctionObjArgs(function, argument, NULL);
    Py_XDECREF(function);
    return result;
}

static PyObject *
has_repeats(PyObject *Py_UNUSED(module), PyObject *sequence)
{
    Py_ssize_t count, slots = 8;
    PyObject *cells = cells_of(sequence, &count), *result = NULL;
    if (cells == NULL)
        return NULL;
    while (slots < count * 2)
        slots *= 2;
    /* Places, from 1 on, below their hashes. */
    uint64_t *index = count < INT32_MAX ? PyMem_Calloc((size_t)slots, sizeof *index) : NULL;
    int repeats = 0;
    if (index == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t place = 0; place < count && !repeats; place++) {
        Cell *cell = cell_at(cells, place);
        Key key, other;
        if (cell == NULL)
            goto done;
        if (!key_of_cell(cell, &key)) { /* in no table, but perhaps twice */
            result = ask_pure("has_repeats", cells);
            goto done;
        }
        uint32_t hash = hash_key(&key) + cell->kind * 0x9e3779b1u;
        Py_ssize_t slot = (Py_ssize_t)hash & (slots - 1);
        for (; index[slot]; slot = (slot + 1) & (slots - 1)) {
            if (index[slot] >> 32 != hash)
                continue;
            Cell *held = cell_at(cells, (Py_ssize_t)(uint32_t)index[slot] - 1);
            if (held->kind == cell->kind && key_of_cell(held, &other) && same_key(&key, &other)) {
                repeats = 1;
                break;
            }
        }
        index[slot] = (uint64_t)hash << 32 | (uint32_t)(place + 1);
    }
    result = PyBool_FromLong(repeats);
done:
    PyMem_Free(index);
    Py_DECREF(cells);
    return result;
}

/* 1 if the definition in an ADD cell has an end, and for damaged bytes. -1: an error. The reader has seen most cells that have none. */
static int
has_end(Cell *cell)
{
    if (cell->endless && cell->given == NULL)
        return 0;
    const uint8_t *data;
    Py_ssize_t size;
    bytes_of(cell, &data, &size);
    if (size && data[0] == 0x92) /* kind and key only */
        return 0;
    Input input = {.at = data, .end = data + size};
    const uint8_t *key;
    Py_ssize_t key_size;
    uint64_t kind;
    int parts;
    uint8_t endless;
    if (cell->given == NULL && take_array(&input, &parts) && parts == 3 && take_number(&input, &kind)
        && take_text(&input, &key, &key_size) && take_definition(&input, &endless) && input.at == input.end && endless) {
        cell->endless = 1;
        return 0;
    }
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)data, size);
    PyObject *found = bytes == NULL ? NULL : ask_pure("ends", bytes);
    int result = found == NULL ? -1 : PyObject_IsTrue(found);
    if (result == 0 && cell->given == NULL)
        cell->endless = 1; /* so it is asked once */
    Py_XDECREF(bytes);
    Py_XDECREF(found);
    return result;
}

static PyObject *
ending(PyObject *Py_UNUSED(module), PyObject *sequence)
{
    Py_ssize_t count;
    PyObject *cells = cells_of(sequence, &count), *found = cells == NULL ? NULL : PyList_New(0);
    if (found == NULL) {
        Py_XDECREF(cells);
        return NULL;
    }
    for (Py_ssize_t place = 0; place < count; place++) {
        Cell *cell = cell_at(cells, place);
        int ends = cell == NULL ? -1 : has_end(cell);
        if (ends < 0 || (ends && PyList_Append(found, (PyObject *)cell) < 0)) {
            Py_DECREF(cells);
            Py_DECREF(found);
            return NULL;
        }
    }
    Py_DECREF(cells);
    return found;
}

/* The counts in a COUNTS cell. 0: an error. */
static int
read_counts(Cell *cell, uint64_t *satisfied, uint64_t *violated)
{
    Input input;
    Py_ssize_t size;
    int parts;
    bytes_of(cell, &input.at, &size);
    input.end = input.at + size;
    if (take_array(&input, &parts) && parts == 3 && skip(&input, 0) && skip(&input, 0) &&
        take_counts(&input, satisfied, violated) && input.at == input.end)
        return 1;
    unsigned long long first, second;
    PyObject *pair = ask_pure("counts_of", (PyObject *)cell);
    int good = pair != NULL && PyArg_ParseTuple(pair, "KK", &first, &second);
    Py_XDECREF(pair);
    if (good)
        *satisfied = first, *violated = second;
    return good;
}

static PyObject *
counts_of(PyObject *Py_UNUSED(module), PyObject *object)
{
    uint64_t satisfied, violated;
    Cell *cell = checked(object);
    if (cell == NULL)
        return NULL;
    if (!read_counts(cell, &satisfied, &violated))
        return NULL;
    return Py_BuildValue("(KK)", (unsigned long long)satisfied, (unsigned long long)violated);
}

/* A sum of up to 2**32 counts below 2**63. */
typedef struct {
    uint64_t low, high;
} Sum;

static PyObject *
sum_object(const Sum *sum)
{
    if (!sum->high)
        return PyLong_FromUnsignedLongLong(sum->low);
    uint8_t bytes[16];
    store_big(bytes, sum->high);
    store_big(bytes + 8, sum->low);
    return number_of(bytes, sizeof bytes);
}

static void
add_count(Sum *sum, uint64_t count)
{
    sum->low += count;
    sum->high += sum->low < count;
}

static PyObject *
total_counts(PyObject *Py_UNUSED(module), PyObject *sequence)
{
    Py_ssize_t count;
    PyObject *cells = cells_of(sequence, &count), *found = cells == NULL ? NULL : PyList_New(0);
    if (found == NULL)
        goto failed;
    for (Py_ssize_t place = 0; place < count;) {
        Sum satisfied = {0, 0}, violated = {0, 0};
        Cell *cell = cell_at(cells, place);
        if (cell == NULL)
            goto failed;
        PyObject *replica = replica_of(cell);
        do {
            uint64_t held, broken;
            if (!read_counts(cell, &held, &broken))
                goto failed;
            add_count(&satisfied, held);
            add_count(&violated, broken);
            cell = ++place < count ? cell_at(cells, place) : NULL;
        } while (cell != NULL && replica_of(cell) == replica);
        if (PyErr_Occurred())
            goto failed;
        PyObject *first = sum_object(&satisfied), *second = sum_object(&violated);
        PyObject *part = first == NULL || second == NULL ? NULL : PyTuple_Pack(3, replica, first, second);
        Py_XDECREF(first);
        Py_XDECREF(second);
        int failed = part == NULL || PyList_Append(found, part) < 0;
        Py_XDECREF(part);
        if (failed)
            goto failed;
    }
    Py_DECREF(cells);
    return found;
failed:
    Py_XDECREF(cells);
    Py_XDECREF(found);
    return NULL;
}

static PyObject *
data_bytes(PyObject *Py_UNUSED(module), PyObject *sequence)
{
    Py_ssize_t count, size, total = 0;
    PyObject *cells = cells_of(sequence, &count);
    if (cells == NULL)
        return NULL;
    for (Py_ssize_t place = 0; place < count; place++) {
        const uint8_t *data;
        Cell *cell = cell_at(cells, place);
        if (cell == NULL) {
            Py_DECREF(cells);
            return NULL;
        }
        bytes_of(cell, &data, &size);
        total += size;
    }
    Py_DECREF(cells);
    return PyLong_FromSsize_t(total);
}

static PyObject *
row_spans(PyObject *Py_UNUSED(module), PyObject *sequence)
{
    Py_ssize_t count;
    PyObject *cells = cells_of(sequence, &count), *found = cells == NULL ? NULL : PyList_New(0);
    if (found == NULL)
        goto failed;
    long long first = 0;
    int begins = 1;
    for (Py_ssize_t place = 0; place < count; place++) {
        Cell *cell = cell_at(cells, place), *next = place + 1 < count ? cell_at(cells, place + 1) : NULL;
        if (cell == NULL || (next == NULL && place + 1 < count))
            goto failed;
        if (begins)
            first = cell->seq;
        begins = next == NULL || replica_of(next) != replica_of(cell);
        if (!begins)
            continue;
        PyObject *span = Py_BuildValue("(OLL)", replica_of(cell), first, (long long)cell->seq);
        int failed = span == NULL || PyList_Append(found, span) < 0;
        Py_XDECREF(span);
        if (failed)
            goto failed;
    }
    Py_DECREF(cells);
    return found;
failed:
    Py_XDECREF(cells);
    Py_XDECREF(found);
    return NULL;
}

/* --- the loops over clocks: dicts of seqs ------------------------------------------------------------------------------------ */

/* The entry of a clock, borrowed; `zero` where it has none. */
static PyObject *
entry_of(PyObject *clock, PyObject *key, PyObject *zero)
{
    PyObject *seq = PyDict_GetItemWithError(clock, key);
    return seq == NULL && !PyErr_Occurred() ? zero : seq;
}

/* Whether a seq is above another: 1, 0, or -1 for an error. Most are the same small number, so the same object. */
static int
is_above(PyObject *seq, PyObject *other)
{
    if (seq == other)
        return 0;
    long long a = PyLong_AsLongLong(seq), b = a == -1 && PyErr_Occurred() ? 0 : PyLong_AsLongLong(other);
    return PyErr_Occurred() ? -1 : a > b;
}

static PyObject *
ahead(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *mine, *theirs, *key, *high;
    Py_ssize_t at = 0;
    if (!PyArg_ParseTuple(arguments, "O!O!", &PyDict_Type, &mine, &PyDict_Type, &theirs))
        return NULL;
    PyObject *zero = PyLong_FromLong(0), *found = PyList_New(0);
    int good = zero != NULL && found != NULL;
    while (good && PyDict_Next(mine, &at, &key, &high)) {
        PyObject *seq = entry_of(theirs, key, zero);
        int above = seq == NULL ? -1 : is_above(high, seq);
        good = above >= 0;
        if (above > 0) {
            PyObject *entry = PyTuple_Pack(2, key, seq);
            good = entry != NULL && PyList_Append(found, entry) == 0;
            Py_XDECREF(entry);
        }
    }
    Py_XDECREF(zero);
    if (!good)
        Py_CLEAR(found);
    return found;
}

/* The parts of a pair, borrowed. */
static int
take_pair(PyObject *pair, PyObject **key, PyObject **seq)
{
    if (pair == NULL || !PyTuple_Check(pair) || PyTuple_Size(pair) != 2) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "an entry is a pair");
        return 0;
    }
    *key = PyTuple_GetItem(pair, 0);
    *seq = PyTuple_GetItem(pair, 1);
    return 1;
}

static PyObject *
lowered(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *clock, *entries, *key, *seq, *result = NULL;
    if (!PyArg_ParseTuple(arguments, "O!O", &PyDict_Type, &clock, &entries))
        return NULL;
    PyObject *list = PySequence_List(entries), *zero = PyLong_FromLong(0);
    Sum by = {0, 0};
    int good = list != NULL && zero != NULL, below = 1;
    for (Py_ssize_t place = 0; good && below && place < PyList_Size(list); place++) {
        PyObject *before = take_pair(PyList_GetItem(list, place), &key, &seq) ? entry_of(clock, key, zero) : NULL;
        int above = before == NULL ? -1 : is_above(before, seq);
        good = above >= 0;
        below = above > 0;
        if (good && below)
            add_count(&by, (uint64_t)PyLong_AsLongLong(before) - (uint64_t)PyLong_AsLongLong(seq));
    }
    if (good)
        result = below ? sum_object(&by) : Py_NewRef(Py_None);
    Py_XDECREF(list);
    Py_XDECREF(zero);
    return result;
}

static PyObject *
pick(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *rows, *above, *whole, *make, *key, *seq;
    if (!PyArg_ParseTuple(arguments, "O!OOO", &PyDict_Type, &rows, &above, &whole, &make))
        return NULL;
    PyObject *found = PySequence_List(above);
    int good = found != NULL;
    for (Py_ssize_t place = 0; good && place < PyList_Size(found); place++) {
        PyObject *pair = PyList_GetItem(found, place), *run = NULL;
        if (take_pair(pair, &key, &seq)) {
            int some = PyObject_IsTrue(seq);
            PyObject *row = some ? NULL : PyDict_GetItemWithError(rows, key);
            if (!some && row == NULL && !PyErr_Occurred())
                PyErr_SetObject(PyExc_KeyError, key);
            if (row != NULL && (PyObject *)Py_TYPE(row) == whole)
                run = Py_NewRef(row);
            else if (!PyErr_Occurred())
                run = PyObject_CallFunctionObjArgs(make, key, seq, NULL);
        }
        good = run != NULL && PyList_SetItem(found, place, run) == 0; /* which takes `run`, and drops the pair */
    }
    if (!good)
        Py_CLEAR(found);
    return found;
}

/* --- the module --------------------------------------------------------------------------------------------------------------- */

static PyMethodDef functions[] = {
    {"ahead", ahead, METH_VARARGS, NULL},
    {"all_hashed", all_hashed, METH_O, NULL},
    {"bind_cells", bind_cells, METH_VARARGS, NULL},
    {"blake", blake, METH_VARARGS, NULL},
    {"by_kind", by_kind, METH_O, NULL},
    {"counts_of", counts_of, METH_O, NULL},
    {"data_bytes", data_bytes, METH_O, NULL},
    {"deflate", deflate, METH_VARARGS, NULL},
    {"ending", ending, METH_O, NULL},
    {"fill_digests", fill_digests, METH_VARARGS, NULL},
    {"gaps_of", gaps_of, METH_VARARGS, NULL},
    {"has_repeats", has_repeats, METH_O, NULL},
    {"hash_above", hash_above, METH_VARARGS, NULL},
    {"hash_blocks", hash_blocks, METH_VARARGS, NULL},
    {"hash_level", hash_level, METH_VARARGS, NULL},
    {"hash_path", hash_path, METH_VARARGS, NULL},
    {"hash_places", hash_places, METH_VARARGS, NULL},
    {"join_cells", join_cells, METH_O, NULL},
    {"lowered", lowered, METH_VARARGS, NULL},
    {"of_kinds", of_kinds, METH_VARARGS, NULL},
    {"pick", pick, METH_VARARGS, NULL},
    {"position", position, METH_VARARGS, NULL},
    {"put_hashes", put_hashes, METH_VARARGS, NULL},
    {"read_cells", read_cells, METH_VARARGS, NULL},
    {"row_spans", row_spans, METH_O, NULL},
    {"standing", standing, METH_VARARGS, NULL},
    {"sum_digests", sum_digests, METH_O, NULL},
    {"superseded", superseded, METH_VARARGS, NULL},
    {"total_counts", total_counts, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_cells", "The compiled core; see `pure_cells`.", -1, functions, NULL, NULL, NULL, NULL,
};

static int
random_key(void)
{
    PyObject *os = PyImport_ImportModule("os");
    PyObject *bytes = os == NULL ? NULL : PyObject_CallMethod(os, "urandom", "i", (int)sizeof sip_key);
    char *key = bytes == NULL ? NULL : PyBytes_AsString(bytes);
    if (key != NULL)
        memcpy(sip_key, key, sizeof sip_key);
    Py_XDECREF(bytes);
    Py_XDECREF(os);
    return key != NULL;
}

PyMODINIT_FUNC
PyInit__cells(void)
{
    const char *pure = getenv("CONSTRAINT_CRDT_PURE");
    if (pure != NULL && *pure && strcmp(pure, "0") != 0) {
        PyErr_SetString(PyExc_ImportError, "CONSTRAINT_CRDT_PURE is set");
        return NULL;
    }
    PyObject *replica = imported("constraint_crdt.crdt.clock", "Replica");
    unbound = replica == NULL ? NULL : PyObject_CallFunction(replica, "si", "", 0);
    Py_XDECREF(replica);
    PyObject *number = imported("builtins", "int");
    from_bytes = number == NULL ? NULL : PyObject_GetAttrString(number, "from_bytes");
    Py_XDECREF(number);
    big = PyUnicode_InternFromString("big");
    cell_type = (PyTypeObject *)PyType_FromSpec(&cell_spec);
    table_type = (PyTypeObject *)PyType_FromSpec(&table_spec);
    places_type = (PyTypeObject *)PyType_FromSpec(&places_spec);
    if (unbound == NULL || from_bytes == NULL || big == NULL || cell_type == NULL || table_type == NULL || places_type == NULL)
        return NULL;
    PyObject *module = random_key() ? PyModule_Create(&definition) : NULL;
    if (module == NULL || PyModule_AddObjectRef(module, "Cell", (PyObject *)cell_type) < 0 ||
        PyModule_AddObjectRef(module, "Table", (PyObject *)table_type) < 0 ||
        PyModule_AddObjectRef(module, "UNBOUND", unbound) < 0) {
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
