/* The fields of a response: those that are usual, as lines of its head. See `_exchange.h`. */

#include "_exchange.h"
#include <string.h>

enum { LENGTH_DIGITS_MAX = 18 };

static unsigned char LOWER[256]; /* of a character of a token; 0: it is none */
static unsigned char TEXT[256];  /* may stand in a value */

void
fill_tables(void)
{
    for (int c = 0; c < 256; c++) {
        int is_alphanumeric = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        int is_token = is_alphanumeric || (c && strchr("!#$%&'*+-.^_`|~", c) != NULL);
        LOWER[c] = !is_token ? 0 : (unsigned char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
        TEXT[c] = c == '\t' || (c >= 32 && c != 127);
    }
}

static int
is_token(text t)
{
    for (Py_ssize_t i = 0; i < t.size; i++) {
        if (!LOWER[t.s[i]]) {
            return 0;
        }
    }
    return t.size > 0;
}

static int
is_text(text t)
{
    for (Py_ssize_t i = 0; i < t.size; i++) {
        if (!TEXT[t.s[i]]) {
            return 0;
        }
    }
    return 1;
}

/* Whether a token is another text, which is in lower case, but for its own case. */
static int
is_name(text token, const char *lower, Py_ssize_t size)
{
    if (token.size != size) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < size; i++) {
        if (LOWER[token.s[i]] != (unsigned char)lower[i]) {
            return 0;
        }
    }
    return 1;
}

static int
is_content_length(text token)
{
    return is_name(token, "content-length", 14);
}

/* Whether a name, a token, means nothing to any interface. */
static int
is_plain_name(state *st, text name)
{
    static const struct {
        const char *name;
        Py_ssize_t size;
    } meant[] = {{"te", 2},
                 {"date", 4},
                 {"server", 6},
                 {"trailer", 7},
                 {"upgrade", 7},
                 {"trailers", 8},
                 {"connection", 10},
                 {"keep-alive", 10},
                 {"content-length", 14},
                 {"proxy-connection", 16},
                 {"transfer-encoding", 17},
                 {"proxy-authenticate", 18},
                 {"proxy-authorization", 19}};
    for (size_t i = 0; i < sizeof meant / sizeof *meant; i++) {
        if (is_name(name, meant[i].name, meant[i].size)) {
            return 0;
        }
    }
    PyObject *id = PyDict_GetItem(st->fields, st->names._request_id);
    if (id == NULL || !PyUnicode_Check(id) || !PyUnicode_IS_COMPACT_ASCII(id)) {
        return 0;
    }
    return !is_name(name, (const char *)PyUnicode_1BYTE_DATA(id), PyUnicode_GET_LENGTH(id));
}

static PyObject *
line_of(text name, text value)
{
    PyObject *line = PyBytes_FromStringAndSize(NULL, name.size + value.size + 4);
    if (line != NULL) {
        char *at = PyBytes_AS_STRING(line);
        memcpy(at, name.s, (size_t)name.size);
        memcpy(at + name.size, ": ", 2);
        memcpy(at + name.size + 2, value.s, (size_t)value.size);
        memcpy(at + name.size + 2 + value.size, "\r\n", 2);
    }
    return line;
}

/* Set Content-Length to what digits say, where there is none yet. 1: done; 0: it is not usual; -1: an exception. */
static int
take_length(state *st, PyObject *self, text name, text value)
{
    long long length = 0;
    if (value.size < 1 || value.size > LENGTH_DIGITS_MAX || (value.s[0] == '0' && value.size > 1)
        || GET(HEAD, self, H_LENGTH) != Py_None) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < value.size; i++) {
        if (value.s[i] < '0' || value.s[i] > '9') {
            return 0;
        }
        length = length * 10 + (value.s[i] - '0');
    }
    PyObject *number = PyLong_FromLongLong(length);
    PyObject *line = number != NULL ? line_of(name, value) : NULL;
    if (line == NULL) {
        Py_XDECREF(number);
        return -1;
    }
    PUT(HEAD, self, H_LENGTH, number);
    PUT(HEAD, self, H_LENGTH_LINE, line);
    return 1;
}

/* Add a field whose value may be of these characters, and is no Content-Length. As above. */
static int
take_plain(state *st, PyObject *self, text name, text value)
{
    PyObject *lines = GET(HEAD, self, H_LINES);
    if (lines == NULL || !PyList_CheckExact(lines) || !is_plain_name(st, name) || !is_text(value)) {
        return 0;
    }
    PyObject *line = line_of(name, value);
    int failed = line == NULL || PyList_Append(lines, line) < 0;
    Py_XDECREF(line);
    return failed ? -1 : 1;
}

/* Add a field as the seed's class and ASGI do: the name of a length as it always is. As above. */
int
take_field(state *st, PyObject *self, text name, text value)
{
    static const text usual_name = {(const unsigned char *)"Content-Length", 14};
    if (!is_token(name)) {
        return 0;
    }
    if (is_content_length(name)) {
        return take_length(st, self, usual_name, value);
    }
    return take_plain(st, self, name, value);
}

int
takes_fields(state *st, PyObject *self)
{
    return GET(HEAD, self, H_TAKES_FIELDS) == Py_True && GET(HEAD, self, H_HEADERS_SENT) == Py_False;
}

/* Add a field as WSGI does: the name of a length as it is, and values in latin-1. As above. */
int
take_wsgi_field(state *st, PyObject *self, PyObject *field)
{
    if (!PyTuple_CheckExact(field) || PyTuple_GET_SIZE(field) != 2) {
        return 0;
    }
    PyObject *name = PyTuple_GET_ITEM(field, 0), *value = PyTuple_GET_ITEM(field, 1);
    if (!PyUnicode_CheckExact(name) || !PyUnicode_CheckExact(value) || !PyUnicode_IS_COMPACT_ASCII(name)
        || !PyUnicode_IS_COMPACT(value) || PyUnicode_KIND(value) != PyUnicode_1BYTE_KIND) {
        return 0;
    }
    text token = {PyUnicode_1BYTE_DATA(name), PyUnicode_GET_LENGTH(name)};
    text said = {PyUnicode_1BYTE_DATA(value), PyUnicode_GET_LENGTH(value)};
    if (!is_token(token)) {
        return 0;
    }
    return is_content_length(token) ? take_length(st, self, token, said) : take_plain(st, self, token, said);
}
