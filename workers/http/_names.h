/* The names of fields: a table of those that HTTP repeats, in which one is found as it was sent, 8 bytes at a time. */

#ifndef PREFORKD_NAMES_H
#define PREFORKD_NAMES_H

#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { NAME_MAX_SIZE = 48, NAME_WORDS = NAME_MAX_SIZE / 8 + 1, TABLE_BITS = 9, TABLE_SIZE = 1 << TABLE_BITS };

/* What a field means to us. TELLS, HAS_ID: proxies say something by it, see names.py. ODD: something that makes the
 * head an unusual one. */
enum meaning { PLAIN, TELLS, HAS_ID, HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, ODD };

typedef struct {
    uint64_t words[NAME_WORDS]; /* the name, in lower case, and zeros */
    PyObject *name;             /* bytes; NULL: the entry is free */
    enum meaning meaning;
} entry;

typedef struct {
    entry entries[TABLE_SIZE]; /* open addressing; at most half of it is used */
    int count;
} table;

#define EACH UINT64_C(0x0101010101010101)
#define HIGH (EACH * 0x80)

static inline uint64_t
load_word(const unsigned char *s)
{
    uint64_t word;
    memcpy(&word, s, sizeof word);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* The high bit of each byte that is below n, at most 128; above the first one some others may be set, too. */
static inline uint64_t
below(uint64_t word, unsigned char n)
{
    return (word - EACH * n) & ~word & HIGH;
}

/* Likewise of each that is c. */
static inline uint64_t
equal_to(uint64_t word, unsigned char c)
{
    return below(word ^ (EACH * c), 1);
}

/* The number of the first byte whose high bit is set; one is. */
static inline int
first_of(uint64_t marks)
{
    return __builtin_ctzll(marks) / 8;
}

/* The entry of a name in lower case, or the free one that it would get.
 *
 * words: the name and zeros; last: the number of the first word that is not full. */
static inline entry *
find_entry(table *names, const uint64_t *words, int last)
{
    uint64_t hash = (words[0] ^ (words[last] << 7) ^ (uint64_t)last) * UINT64_C(0x9E3779B97F4A7C15);
    for (uint64_t i = hash >> (64 - TABLE_BITS);; i = (i + 1) % TABLE_SIZE) {
        entry *one = &names->entries[i];
        int same = 0;
        while (same <= last && one->words[same] == words[same]) {
            same++;
        }
        if (one->name == NULL || same > last) {
            return one;
        }
    }
}

/* Likewise, of a name of NAME_MAX_SIZE bytes at most. */
static entry *
find_name(table *names, const unsigned char *name, Py_ssize_t size)
{
    unsigned char padded[8 * NAME_WORDS] = {0};
    uint64_t words[NAME_WORDS];
    memcpy(padded, name, (size_t)size);
    for (int i = 0; i < NAME_WORDS; i++) {
        words[i] = load_word(padded + 8 * i);
    }
    return find_entry(names, words, (int)(size / 8));
}

/* The entry of the name that ends with the next colon; NULL: it has none, or is to be looked at byte by byte.
 *
 * last_load: where the last word can be loaded from. A letter and its lower case differ in one bit, which digits and
 * hyphens have too: a byte that only looks like a digit or a hyphen with it is a control character, which ends a
 * name. */
static inline entry *
known_name(table *names, const unsigned char *s, const unsigned char *last_load, Py_ssize_t *size)
{
    uint64_t words[NAME_WORDS];
    for (int i = 0; i < NAME_WORDS && s + 8 * i <= last_load; i++) {
        uint64_t word = load_word(s + 8 * i);
        uint64_t ends = equal_to(word, ':') | below(word, '!');
        words[i] = word | (EACH * 0x20);
        if (ends) {
            int rest = first_of(ends);
            words[i] &= (UINT64_C(1) << (8 * rest)) - 1;
            *size = 8 * i + rest;
            entry *found = s[*size] == ':' && *size > 0 ? find_entry(names, words, i) : NULL;
            return found != NULL && found->name != NULL ? found : NULL;
        }
    }
    return NULL;
}

/* Add a name in lower case that is not there; -1: an exception. */
static int
add_name(table *names, PyObject *name, enum meaning meaning)
{
    if (!PyBytes_CheckExact(name) || PyBytes_GET_SIZE(name) < 1 || PyBytes_GET_SIZE(name) > NAME_MAX_SIZE
        || names->count == TABLE_SIZE / 2) {
        PyErr_SetString(PyExc_ValueError, "too many names, or wrong ones");
        return -1;
    }
    const unsigned char *s = (const unsigned char *)PyBytes_AS_STRING(name);
    Py_ssize_t size = PyBytes_GET_SIZE(name);
    for (Py_ssize_t i = 0; i < size; i++) {
        if (!(s[i] >= 'a' && s[i] <= 'z') && !(s[i] >= '0' && s[i] <= '9') && s[i] != '-') {
            /* See known_name(). */
            PyErr_SetString(PyExc_ValueError, "a name has letters in lower case, digits and hyphens");
            return -1;
        }
    }
    entry *one = find_name(names, s, size);
    if (one->name == NULL) {
        memcpy(one->words, s, (size_t)size);
        for (int i = 0; i < NAME_WORDS; i++) {
            one->words[i] = load_word((const unsigned char *)&one->words[i]);
        }
        one->name = Py_NewRef(name);
        one->meaning = meaning;
        names->count++;
    }
    return 0;
}

static void
clear_names(table *names)
{
    for (int i = 0; i < TABLE_SIZE; i++) {
        Py_CLEAR(names->entries[i].name);
    }
    names->count = 0;
}

#endif
