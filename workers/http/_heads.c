/* The usual response, in C: what `head.py`, `response.py`, `writer.py` and the gateways do for it, and nothing else.
 *
 * The classes are those of Python, in both forms. A method here does what the one of the same name does in the usual
 * case; in every other one it has done nothing and calls that, the reference. So nothing is refused here, and no rule
 * has to be known here that is not about a usual response. `tests/workers/http/test_heads.py` compares the two.
 *
 * Attributes are read and written where the slots of their classes lie (`learn()`). One that was deleted is NULL: that
 * is no usual case either.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <string.h>
#include <structmember.h> /* its names, until 3.12 the only ones */

enum { SLOTS_MAX = 20, LENGTH_DIGITS_MAX = 18, JOIN_BELOW = 32768 };

/* Where the slots of a class lie. */
typedef struct {
    PyTypeObject *type; /* NULL: not known yet, and nothing is one of it */
    Py_ssize_t at[SLOTS_MAX];
} layout;

/* The classes, each with its slots in the order of their names in `CLASSES`. */
enum { HEAD, RESPONSE, WIRE, CONNECTION, INTAKE, CLOCK, CALL, ASGI_RESPONSE, WSGI_RESPONSE, CLASS_COUNT };
enum {
    H_WIRE, H_EXCHANGE, H_STATUS, H_SENT_STATUS, H_FIRST_LINE, H_VERSION, H_CLOSE, H_LINES, H_LENGTH, H_LENGTH_LINE,
    H_PLAIN, H_TAKES_FIELDS, H_HEADERS_SENT, H_ENDED, H_LEFT, H_HEAD_IS_DUE, H_KEEPS
};
enum { W_EXCHANGE, W_RESPONSE, W_CORKED, W_PARTS, W_DUE, W_PAUSED, W_CONNECTION, W_INTAKE, W_TRANSPORT, W_SENT, W_SIZE };
enum { CONNECTION_PERSISTENT, CONNECTION_STATE };
enum { INTAKE_CONTINUE_IS_DUE, INTAKE_REST_MAY_BE_LONG };
enum { CLOCK_KEEP_ALIVE, CLOCK_CLOSE };
enum { C_GATEWAY, C_EXCHANGE, C_MESSAGE, C_PAYLOAD, C_RESPONSE, C_PHASE, C_IS_GONE, C_WANTS_TRAILERS };

enum { PHASE_HEAD = 0, PHASE_BODY = 1, PHASE_COMPLETE = 4 }; /* of http_call.py */

/* Names of attributes and keys. */
#define NAMES(X)                                                                                                       \
    X(_request_id) X(_take_field) X(body) X(carrier) X(exchange) X(headers) X(hop_by_hop)                 \
    X(http_version) X(id_line) X(is_closing) X(keep_alive) X(method) X(more_body) X(render) X(request)                 \
    X(should_close) X(status) X(trailers) X(type) X(version) X(wire) X(write)
#define MEMBER(name) PyObject *name;

typedef struct {
    PyTypeObject *method_type;
    layout classes[CLASS_COUNT];
    PyObject *clock;
    PyObject *plain_lines; /* dict: from a usual status to its line */
    PyObject *version;     /* HttpVersion11 */
    PyObject *done;
    PyObject *active; /* ConnectionState.ACTIVE */
    PyObject *fields; /* the names of fields.py, for that of the field with the request's id */
    PyObject *pure_add_pairs;
    PyObject *kind_start, *kind_body, *head;
    PyObject *nothing; /* b"" */
    PyObject *numbers[PHASE_COMPLETE + 1];
    struct {
        NAMES(MEMBER)
    } names;
} state;

/* NULL without an exception: this is not the usual case, and nothing has been done. */
typedef PyObject *(*usual)(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names);

/* A method of a class of Python. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    usual function;
    PyTypeObject *owner;
    PyObject *pure;   /* the reference */
    PyObject *module; /* whose state is `st` */
    state *st;
} method;

static unsigned char LOWER[256]; /* of a character of a token; 0: it is none */
static unsigned char TEXT[256];  /* may stand in a value */

static void
fill_tables(void)
{
    for (int c = 0; c < 256; c++) {
        int is_alphanumeric = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        int is_token = is_alphanumeric || (c && strchr("!#$%&'*+-.^_`|~", c) != NULL);
        LOWER[c] = !is_token ? 0 : (unsigned char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
        TEXT[c] = c == '\t' || (c >= 32 && c != 127);
    }
}

/* Slots. */

static inline PyObject **
slot(state *st, int class, PyObject *object, int number)
{
    return (PyObject **)((char *)object + st->classes[class].at[number]);
}

#define GET(class, object, number) (*slot(st, class, object, number)) /* borrowed */

/* Takes over a reference to the value. */
static inline void
put(state *st, int class, PyObject *object, int number, PyObject *value)
{
    PyObject **place = slot(st, class, object, number);
    PyObject *old = *place;
    *place = value;
    Py_XDECREF(old);
}

#define PUT(class, object, number, value) put(st, class, object, number, value)

static inline int
is_exactly(state *st, int class, PyObject *object)
{
    return object != NULL && Py_TYPE(object) == st->classes[class].type;
}

static inline int
is_one(state *st, int class, PyObject *object)
{
    return object != NULL && st->classes[class].type != NULL && PyObject_TypeCheck(object, st->classes[class].type);
}

/* The wire of a response if it is that of HTTP/1.1; borrowed, else NULL. */
static inline PyObject *
wire_of(state *st, PyObject *response)
{
    PyObject *wire = GET(HEAD, response, H_WIRE);
    return is_exactly(st, WIRE, wire) ? wire : NULL;
}

/* 1, 0, or -1 with an exception. */
static int
attribute_is_true(PyObject *object, PyObject *name)
{
    PyObject *value = PyObject_GetAttr(object, name);
    int is_true = value == NULL ? -1 : PyObject_IsTrue(value);
    Py_XDECREF(value);
    return is_true;
}

/* Whether a request's method is HEAD; -1 with an exception. */
static int
asks_for_head(state *st, PyObject *request)
{
    PyObject *name = PyObject_GetAttr(request, st->names.method);
    int result = name == NULL ? -1 : PyObject_RichCompareBool(name, st->head, Py_EQ);
    Py_XDECREF(name);
    return result;
}

/* Fields. */

static int
is_token(const unsigned char *s, Py_ssize_t size)
{
    for (Py_ssize_t i = 0; i < size; i++) {
        if (!LOWER[s[i]]) {
            return 0;
        }
    }
    return size > 0;
}

static int
is_text(const unsigned char *s, Py_ssize_t size)
{
    for (Py_ssize_t i = 0; i < size; i++) {
        if (!TEXT[s[i]]) {
            return 0;
        }
    }
    return 1;
}

static int
is_ascii(const unsigned char *s, Py_ssize_t size)
{
    for (Py_ssize_t i = 0; i < size; i++) {
        if (s[i] > 127) {
            return 0;
        }
    }
    return 1;
}

/* Whether a token is another text, which is in lower case, but for its own case. */
static int
is_name(const unsigned char *s, Py_ssize_t size, const char *lower, Py_ssize_t lower_size)
{
    if (size != lower_size) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < size; i++) {
        if (LOWER[s[i]] != (unsigned char)lower[i]) {
            return 0;
        }
    }
    return 1;
}

static const char CONTENT_LENGTH[] = "content-length";

/* Whether a name, a token, means nothing to any interface. */
static int
is_plain_name(state *st, const unsigned char *s, Py_ssize_t size)
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
        if (is_name(s, size, meant[i].name, meant[i].size)) {
            return 0;
        }
    }
    PyObject *id = PyDict_GetItem(st->fields, st->names._request_id);
    if (id == NULL || !PyUnicode_Check(id) || !PyUnicode_IS_COMPACT_ASCII(id)) {
        return 0;
    }
    return !is_name(s, size, (const char *)PyUnicode_1BYTE_DATA(id), PyUnicode_GET_LENGTH(id));
}

static PyObject *
line_of(const unsigned char *name, Py_ssize_t name_size, const unsigned char *value, Py_ssize_t value_size)
{
    PyObject *line = PyBytes_FromStringAndSize(NULL, name_size + value_size + 4);
    if (line != NULL) {
        char *at = PyBytes_AS_STRING(line);
        memcpy(at, name, (size_t)name_size);
        memcpy(at + name_size, ": ", 2);
        memcpy(at + name_size + 2, value, (size_t)value_size);
        memcpy(at + name_size + 2 + value_size, "\r\n", 2);
    }
    return line;
}

/* Set Content-Length to what digits say, where there is none yet. 1: done; 0: it is not usual; -1: an exception. */
static int
take_length(state *st, PyObject *self, const char *name, const unsigned char *value, Py_ssize_t size)
{
    long long length = 0;
    if (size < 1 || size > LENGTH_DIGITS_MAX || (value[0] == '0' && size > 1)
        || GET(HEAD, self, H_LENGTH) != Py_None) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < size; i++) {
        if (value[i] < '0' || value[i] > '9') {
            return 0;
        }
        length = length * 10 + (value[i] - '0');
    }
    PyObject *number = PyLong_FromLongLong(length);
    PyObject *line = number != NULL ? line_of((const unsigned char *)name, sizeof CONTENT_LENGTH - 1, value, size) : NULL;
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
take_plain(state *st, PyObject *self, const unsigned char *name, Py_ssize_t name_size, const unsigned char *value,
           Py_ssize_t value_size)
{
    PyObject *lines = GET(HEAD, self, H_LINES);
    if (lines == NULL || !PyList_CheckExact(lines) || !is_plain_name(st, name, name_size) || !is_text(value, value_size)) {
        return 0;
    }
    PyObject *line = line_of(name, name_size, value, value_size);
    int failed = line == NULL || PyList_Append(lines, line) < 0;
    Py_XDECREF(line);
    return failed ? -1 : 1;
}

/* Add a field as the seed's class and ASGI do: the name of a length as it always is, and values in ASCII. As above. */
static int
take_field(state *st, PyObject *self, const unsigned char *name, Py_ssize_t name_size, const unsigned char *value,
           Py_ssize_t value_size)
{
    if (!is_token(name, name_size) || !is_ascii(value, value_size)) {
        return 0;
    }
    if (is_name(name, name_size, CONTENT_LENGTH, sizeof CONTENT_LENGTH - 1)) {
        return take_length(st, self, "Content-Length", value, value_size);
    }
    return take_plain(st, self, name, name_size, value, value_size);
}

static inline int
takes_fields(state *st, PyObject *self)
{
    return GET(HEAD, self, H_TAKES_FIELDS) == Py_True && GET(HEAD, self, H_HEADERS_SENT) == Py_False;
}

/* ResponseHead. */

/* Fill the slots of a response. 1: done; 0: it is not a usual one; -1: an exception. */
static int
begin(state *st, PyObject *self, PyObject *wire, PyObject *status, PyObject *version)
{
    if (!is_exactly(st, WIRE, wire) || !PyLong_CheckExact(status)) {
        return 0;
    }
    PyObject *line = PyDict_GetItemWithError(st->plain_lines, status);
    if (line == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *lines = PyList_New(0);
    if (lines == NULL) {
        return -1;
    }
    if (GET(WIRE, wire, W_EXCHANGE) == NULL) {
        Py_DECREF(lines);
        return 0;
    }
    PUT(HEAD, self, H_WIRE, Py_NewRef(wire));
    PUT(HEAD, self, H_EXCHANGE, Py_NewRef(GET(WIRE, wire, W_EXCHANGE)));
    PUT(HEAD, self, H_STATUS, Py_NewRef(status));
    PUT(HEAD, self, H_SENT_STATUS, Py_NewRef(status));
    PUT(HEAD, self, H_FIRST_LINE, Py_NewRef(line));
    PUT(HEAD, self, H_VERSION, Py_NewRef(version));
    PUT(HEAD, self, H_CLOSE, Py_NewRef(Py_False));
    PUT(HEAD, self, H_LINES, lines);
    PUT(HEAD, self, H_LENGTH, Py_NewRef(Py_None));
    PUT(HEAD, self, H_LENGTH_LINE, Py_NewRef(st->nothing));
    PUT(HEAD, self, H_PLAIN, Py_NewRef(Py_True));
    PUT(HEAD, self, H_TAKES_FIELDS, Py_NewRef(Py_True));
    PUT(HEAD, self, H_HEADERS_SENT, Py_NewRef(Py_False));
    PUT(HEAD, self, H_ENDED, Py_NewRef(Py_False));
    PUT(HEAD, self, H_LEFT, Py_NewRef(Py_None));
    PUT(HEAD, self, H_HEAD_IS_DUE, Py_NewRef(Py_False));
    PUT(HEAD, self, H_KEEPS, Py_NewRef(Py_False));
    return 1;
}

static PyObject *
head_init(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *version = st->version;
    if (names != NULL && PyTuple_GET_SIZE(names) > 0) {
        if (count != 3 || PyTuple_GET_SIZE(names) != 1
            || PyUnicode_Compare(PyTuple_GET_ITEM(names, 0), st->names.http_version) != 0) {
            return NULL;
        }
        version = args[3];
    }
    else if (count == 4) {
        version = args[3];
    }
    else if (count != 3) {
        return NULL;
    }
    return begin(st, args[0], args[1], args[2], version) == 1 ? Py_NewRef(Py_None) : NULL;
}

static PyObject *
head_add_header(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count != 3 || names != NULL || !takes_fields(st, args[0]) || !PyUnicode_CheckExact(args[1])
        || !PyUnicode_CheckExact(args[2]) || !PyUnicode_IS_COMPACT_ASCII(args[1])
        || !PyUnicode_IS_COMPACT_ASCII(args[2])) {
        return NULL;
    }
    int found = take_field(st, args[0], PyUnicode_1BYTE_DATA(args[1]), PyUnicode_GET_LENGTH(args[1]),
                           PyUnicode_1BYTE_DATA(args[2]), PyUnicode_GET_LENGTH(args[2]));
    return found == 1 ? Py_NewRef(Py_None) : NULL;
}

/* Whether the connection stays open: `ResponseWriter.may_stay_open()`. -1: an exception; 2: nobody knows. */
static int
may_stay_open(state *st, PyObject *wire, PyObject *request)
{
    PyObject *connection = GET(WIRE, wire, W_CONNECTION), *intake = GET(WIRE, wire, W_INTAKE);
    if (!is_one(st, CONNECTION, connection) || !is_exactly(st, INTAKE, intake)) {
        return 2;
    }
    PyObject *persistent = GET(CONNECTION, connection, CONNECTION_PERSISTENT);
    if (persistent != Py_True || GET(INTAKE, intake, INTAKE_CONTINUE_IS_DUE) != Py_False
        || GET(INTAKE, intake, INTAKE_REST_MAY_BE_LONG) != Py_False) {
        return persistent == Py_False ? 0 : 2;
    }
    int closes = attribute_is_true(request, st->names.should_close);
    return closes < 0 ? -1 : !closes;
}

/* The size of bytes objects together; -1: there is something else among them. */
static Py_ssize_t
size_of(PyObject *const *items, Py_ssize_t count)
{
    Py_ssize_t size = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!PyBytes_CheckExact(items[i]) || PyBytes_GET_SIZE(items[i]) > PY_SSIZE_T_MAX - size) {
            return -1;
        }
        size += PyBytes_GET_SIZE(items[i]);
    }
    return size;
}

static char *
copy(char *to, PyObject *const *items, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        memcpy(to, PyBytes_AS_STRING(items[i]), (size_t)PyBytes_GET_SIZE(items[i]));
        to += PyBytes_GET_SIZE(items[i]);
    }
    return to;
}

/* The parts of a head, and what comes behind it, as one bytes object; NULL without an exception: they are not usual. */
static PyObject *
join(PyObject *first, PyObject *lines, PyObject *id_line, PyObject *fields, PyObject *body)
{
    if (first == NULL || fields == NULL || lines == NULL || !PyList_CheckExact(lines)) {
        return NULL;
    }
    PyObject *ends[] = {id_line, fields};
    PyObject **line = PySequence_Fast_ITEMS(lines), **part = PySequence_Fast_ITEMS(body);
    Py_ssize_t line_count = PyList_GET_SIZE(lines), part_count = PySequence_Fast_GET_SIZE(body);
    Py_ssize_t sizes[] = {size_of(&first, 1), size_of(line, line_count), size_of(ends, 2), size_of(part, part_count)};
    Py_ssize_t size = 0;
    for (int i = 0; i < 4; i++) {
        if (sizes[i] < 0 || sizes[i] > PY_SSIZE_T_MAX / 8) {
            return NULL;
        }
        size += sizes[i];
    }
    PyObject *joined = PyBytes_FromStringAndSize(NULL, size);
    if (joined != NULL) {
        char *at = copy(PyBytes_AS_STRING(joined), &first, 1);
        copy(copy(copy(at, line, line_count), ends, 2), part, part_count);
    }
    return joined;
}

static PyObject *
head_render(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *self = args[0];
    if (count != 2 || names != NULL || !(PyList_CheckExact(args[1]) || PyTuple_CheckExact(args[1]))
        || GET(HEAD, self, H_PLAIN) != Py_True) {
        return NULL;
    }
    PyObject *wire = wire_of(st, self), *exchange = GET(HEAD, self, H_EXCHANGE), *close = GET(HEAD, self, H_CLOSE);
    if (wire == NULL || exchange == NULL || exchange == Py_None || (close != Py_False && close != Py_True)) {
        return NULL;
    }
    Py_INCREF(wire);
    Py_INCREF(exchange);
    PyObject *request = PyObject_GetAttr(exchange, st->names.request);
    PyObject *id_line = NULL, *joined = NULL;
    int keeps = request == NULL || request == Py_None ? -1 : attribute_is_true(exchange, st->names.keep_alive);
    if (keeps == 1) {
        keeps = close == Py_False ? may_stay_open(st, wire, request) : 0;
    }
    if (keeps == 0 || keeps == 1) {
        id_line = PyObject_GetAttr(request, st->names.id_line);
    }
    if (id_line != NULL) {
        PyObject *fields = GET(CLOCK, st->clock, keeps ? CLOCK_KEEP_ALIVE : CLOCK_CLOSE);
        joined = join(GET(HEAD, self, H_FIRST_LINE), GET(HEAD, self, H_LINES), id_line, fields, args[1]);
    }
    if (joined != NULL) {
        PUT(HEAD, self, H_HEAD_IS_DUE, Py_NewRef(Py_False));
        PUT(HEAD, self, H_KEEPS, PyBool_FromLong(keeps));
    }
    Py_XDECREF(id_line);
    Py_XDECREF(request);
    Py_DECREF(exchange);
    Py_DECREF(wire);
    return joined;
}

/* Response. */

/* The current exchange of a wire that a response is of, when it has not begun to go out; borrowed, else NULL. */
static PyObject *
waiting_exchange(state *st, PyObject *self, PyObject *wire)
{
    PyObject *exchange = GET(HEAD, self, H_EXCHANGE);
    int is_usual = exchange != NULL && exchange != Py_None && exchange == GET(WIRE, wire, W_EXCHANGE)
                   && GET(WIRE, wire, W_CORKED) == Py_True && GET(WIRE, wire, W_DUE) == Py_False
                   && GET(WIRE, wire, W_RESPONSE) == Py_None;
    return is_usual ? exchange : NULL;
}

/* What every response that goes out sets. */
static void
give_to_wire(state *st, PyObject *self, PyObject *wire)
{
    PUT(HEAD, self, H_TAKES_FIELDS, Py_NewRef(Py_False));
    PUT(HEAD, self, H_HEADERS_SENT, Py_NewRef(Py_True));
    PUT(HEAD, self, H_HEAD_IS_DUE, Py_NewRef(Py_True));
    PUT(WIRE, wire, W_DUE, Py_NewRef(Py_True));
    PUT(WIRE, wire, W_RESPONSE, Py_NewRef(self));
}

/* Set Content-Length, where there is none, to the size of the body. 1: it is that; 0: it is not; -1: an exception. */
static int
have_length(state *st, PyObject *self, Py_ssize_t size)
{
    PyObject *length = GET(HEAD, self, H_LENGTH);
    if (length == NULL) {
        return 0;
    }
    if (length != Py_None) {
        Py_ssize_t said = PyLong_CheckExact(length) ? PyLong_AsSsize_t(length) : -1;
        if (said == -1) {
            PyErr_Clear(); /* it is too large */
        }
        return said == size && GET(HEAD, self, H_LENGTH_LINE) != NULL;
    }
    PyObject *number = PyLong_FromSsize_t(size);
    PyObject *line = number != NULL ? PyBytes_FromFormat("Content-Length: %zd\r\n", size) : NULL;
    if (line == NULL) {
        Py_XDECREF(number);
        return -1;
    }
    PUT(HEAD, self, H_LENGTH, number);
    PUT(HEAD, self, H_LENGTH_LINE, line);
    return 1;
}

/* `Response.send_whole()`. 1: sent; 0: it is not the usual case, or not sent by it; -1: an exception. */
static int
send_whole(state *st, PyObject *self, PyObject *body)
{
    PyObject *wire = wire_of(st, self), *exchange = wire != NULL ? waiting_exchange(st, self, wire) : NULL;
    if (exchange == NULL || !PyBytes_CheckExact(body) || GET(WIRE, wire, W_PAUSED) != Py_False) {
        return 0;
    }
    Py_INCREF(wire);
    Py_INCREF(exchange);
    PyObject *request = PyObject_GetAttr(exchange, st->names.request);
    int is_head = request == NULL ? -1 : asks_for_head(st, request);
    int result = is_head < 0 ? -1 : 0;
    PyObject *lines = GET(HEAD, self, H_LINES), *parts = GET(WIRE, wire, W_PARTS);
    PyObject *status = GET(HEAD, self, H_STATUS);
    long code = status != NULL && PyLong_CheckExact(status) ? PyLong_AsLong(status) : -1;
    if (is_head == 0 && code == -1) {
        PyErr_Clear(); /* it is too large */
    }
    if (is_head == 0 && code > 0 && code != 204 && code != 205 && code != 304 && lines != NULL
        && PyList_CheckExact(lines) && parts != NULL && PyList_CheckExact(parts)) {
        result = have_length(st, self, PyBytes_GET_SIZE(body));
    }
    if (result == 1) {
        int failed = PyList_Append(lines, GET(HEAD, self, H_LENGTH_LINE)) < 0;
        failed = failed || (PyBytes_GET_SIZE(body) > 0 && PyList_Append(parts, body) < 0);
        if (failed) {
            result = -1; /* no memory: nobody goes on from here */
        }
        else {
            PUT(HEAD, self, H_LEFT, Py_NewRef(st->numbers[0]));
            PUT(HEAD, self, H_ENDED, Py_NewRef(Py_True));
            give_to_wire(st, self, wire);
        }
    }
    Py_XDECREF(request);
    Py_DECREF(exchange);
    Py_DECREF(wire);
    return result;
}

static PyObject *
response_send_whole(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count != 2 || names != NULL) {
        return NULL;
    }
    return send_whole(st, args[0], args[1]) == 1 ? Py_NewRef(Py_True) : NULL;
}

static PyObject *
response_send_headers(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *self = args[0], *wire = wire_of(st, self);
    PyObject *exchange = wire != NULL ? waiting_exchange(st, self, wire) : NULL;
    if (count != 1 || names != NULL || exchange == NULL || GET(HEAD, self, H_HEADERS_SENT) != Py_False
        || GET(HEAD, self, H_ENDED) != Py_False || GET(HEAD, self, H_PLAIN) != Py_True
        || GET(HEAD, self, H_STATUS) == NULL || GET(HEAD, self, H_STATUS) != GET(HEAD, self, H_SENT_STATUS)) {
        return NULL;
    }
    Py_INCREF(wire);
    Py_INCREF(exchange);
    PyObject *carrier = PyObject_GetAttr(exchange, st->names.carrier);
    PyObject *request = carrier != NULL && is_one(st, CONNECTION, carrier)
                                && GET(CONNECTION, carrier, CONNECTION_STATE) == st->active
                            ? PyObject_GetAttr(exchange, st->names.request)
                            : NULL;
    int is_head = request == NULL || request == Py_None ? -1 : asks_for_head(st, request);
    PyObject *lines = GET(HEAD, self, H_LINES), *length = GET(HEAD, self, H_LENGTH);
    PyObject *length_line = GET(HEAD, self, H_LENGTH_LINE);
    int is_usual = is_head == 0 && lines != NULL && PyList_CheckExact(lines) && length != NULL && length != Py_None
                   && length_line != NULL && PyList_Append(lines, length_line) == 0;
    if (is_usual) {
        PUT(HEAD, self, H_LEFT, Py_NewRef(length));
        give_to_wire(st, self, wire);
    }
    Py_XDECREF(request);
    Py_XDECREF(carrier);
    Py_DECREF(exchange);
    Py_DECREF(wire);
    return is_usual ? Py_NewRef(Py_None) : NULL;
}

static PyObject *
response_write(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *self = args[0], *wire = wire_of(st, self), *left = GET(HEAD, self, H_LEFT);
    if (count != 2 || names != NULL || wire == NULL || !PyBytes_CheckExact(args[1]) || left == NULL
        || !PyLong_CheckExact(left) || GET(HEAD, self, H_PLAIN) != Py_True
        || GET(HEAD, self, H_HEADERS_SENT) != Py_True || GET(HEAD, self, H_ENDED) != Py_False
        || GET(WIRE, wire, W_CORKED) != Py_True) {
        return NULL;
    }
    PyObject *parts = GET(WIRE, wire, W_PARTS);
    Py_ssize_t size = PyLong_AsSsize_t(left);
    if (size < 0) {
        PyErr_Clear(); /* it is too large */
        return NULL;
    }
    if (parts == NULL || !PyList_CheckExact(parts) || PyBytes_GET_SIZE(args[1]) > size) {
        return NULL;
    }
    PyObject *rest = PyLong_FromSsize_t(size - PyBytes_GET_SIZE(args[1]));
    if (rest == NULL || PyList_Append(parts, args[1]) < 0) {
        Py_XDECREF(rest);
        return NULL;
    }
    PUT(HEAD, self, H_LEFT, rest);
    PUT(WIRE, wire, W_DUE, Py_NewRef(Py_True));
    Py_RETURN_NONE;
}

static PyObject *
response_write_eof(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *self = args[0], *wire = wire_of(st, self), *exchange = GET(HEAD, self, H_EXCHANGE);
    if (count != 1 || names != NULL || wire == NULL || exchange == NULL || exchange == Py_None
        || GET(HEAD, self, H_LEFT) != st->numbers[0] || GET(HEAD, self, H_PLAIN) != Py_True
        || GET(WIRE, wire, W_CORKED) != Py_True || GET(WIRE, wire, W_PAUSED) != Py_False) {
        return NULL;
    }
    PUT(HEAD, self, H_ENDED, Py_NewRef(Py_True));
    return Py_NewRef(st->done);
}

/* ResponseWriter. */

static PyObject *
writer_flush(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *self = args[0], *response = GET(WIRE, self, W_RESPONSE), *parts = GET(WIRE, self, W_PARTS);
    PyObject *transport = GET(WIRE, self, W_TRANSPORT), *sent = GET(WIRE, self, W_SENT);
    if (count != 1 || names != NULL || !is_one(st, HEAD, response) || GET(HEAD, response, H_HEAD_IS_DUE) != Py_True
        || parts == NULL || !PyList_CheckExact(parts) || transport == NULL || transport == Py_None || sent == NULL
        || !PyLong_CheckExact(sent)) {
        return NULL;
    }
    if (PyList_GET_SIZE(parts) > 1
        || (PyList_GET_SIZE(parts) == 1
            && (!PyBytes_CheckExact(PyList_GET_ITEM(parts, 0))
                || PyBytes_GET_SIZE(PyList_GET_ITEM(parts, 0)) >= JOIN_BELOW))) {
        return NULL;
    }
    /* From here on this is not undone: what is called may fail, as it may in the reference. */
    Py_INCREF(response);
    Py_INCREF(parts);
    PUT(WIRE, self, W_SIZE, Py_NewRef(st->numbers[0]));
    PUT(WIRE, self, W_DUE, Py_NewRef(Py_False));
    PyObject *arguments[] = {response, parts}, *result = NULL;
    PyObject *data = PyObject_VectorcallMethod(st->names.render, arguments, 2, NULL);
    if (data == NULL || PyList_SetSlice(parts, 0, PyList_GET_SIZE(parts), NULL) < 0) {
        goto end;
    }
    transport = Py_XNewRef(GET(WIRE, self, W_TRANSPORT)); /* as it is now */
    if (transport == NULL || transport == Py_None) {
        result = Py_NewRef(Py_None);
        goto end_with_transport;
    }
    PyObject *answer = PyObject_CallMethodNoArgs(transport, st->names.is_closing);
    int is_closing = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    if (is_closing != 0) {
        result = is_closing < 0 ? NULL : Py_NewRef(Py_None);
        goto end_with_transport;
    }
    PyObject *size = PyLong_FromSsize_t(PyObject_Size(data));
    PyObject *before = GET(WIRE, self, W_SENT);
    sent = size != NULL && before != NULL && !PyErr_Occurred() ? PyNumber_Add(before, size) : NULL;
    Py_XDECREF(size);
    if (before == NULL) {
        PyErr_SetString(PyExc_AttributeError, "sent");
    }
    if (sent != NULL) {
        PUT(WIRE, self, W_SENT, sent);
        result = PyObject_CallMethodOneArg(transport, st->names.write, data);
    }
    if (result != NULL) {
        Py_SETREF(result, Py_NewRef(Py_None));
    }
end_with_transport:
    Py_XDECREF(transport);
end:
    Py_XDECREF(data);
    Py_DECREF(parts);
    Py_DECREF(response);
    return result;
}

/* AsgiResponse. */

/* Have the reference take one pair. */
static int
add_by_reference(state *st, PyObject *self, PyObject *pair, PyObject *hop_by_hop)
{
    PyObject *one = PyTuple_Pack(1, pair);
    PyObject *arguments[] = {self, one, hop_by_hop};
    PyObject *result = one != NULL ? PyObject_Vectorcall(st->pure_add_pairs, arguments, 3, NULL) : NULL;
    Py_XDECREF(result);
    Py_XDECREF(one);
    return result != NULL ? 0 : -1;
}

/* 0: done; -1: an exception. */
static int
add_pairs(state *st, PyObject *self, PyObject *pairs, PyObject *hop_by_hop)
{
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(pairs); i++) {
        PyObject *pair = Py_NewRef(PySequence_Fast_GET_ITEM(pairs, i));
        int found = 0;
        if (PyTuple_CheckExact(pair) && PyTuple_GET_SIZE(pair) == 2 && takes_fields(st, self)) {
            PyObject *name = PyTuple_GET_ITEM(pair, 0), *value = PyTuple_GET_ITEM(pair, 1);
            if (PyBytes_CheckExact(name) && PyBytes_CheckExact(value)) {
                found = take_field(st, self, (const unsigned char *)PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name),
                                   (const unsigned char *)PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value));
            }
        }
        if (found == 0) {
            found = add_by_reference(st, self, pair, hop_by_hop);
        }
        Py_DECREF(pair);
        if (found < 0) {
            return -1;
        }
    }
    return 0;
}

static PyObject *
asgi_add_pairs(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count != 3 || names != NULL || !(PyList_CheckExact(args[1]) || PyTuple_CheckExact(args[1]))) {
        return NULL;
    }
    return add_pairs(st, args[0], args[1], args[2]) == 0 ? Py_NewRef(Py_None) : NULL;
}

/* WsgiResponse. */

/* The code of a status as it stands in the usual first lines; NULL without an exception: it is another one. */
static PyObject *
code_of(state *st, PyObject *status)
{
    if (!PyUnicode_CheckExact(status) || !PyUnicode_IS_COMPACT_ASCII(status) || PyUnicode_GET_LENGTH(status) < 5) {
        return NULL;
    }
    const unsigned char *s = PyUnicode_1BYTE_DATA(status);
    Py_ssize_t size = PyUnicode_GET_LENGTH(status);
    for (int i = 0; i < 3; i++) {
        if (s[i] < '0' || s[i] > '9') {
            return NULL;
        }
    }
    PyObject *code = PyLong_FromLong((s[0] - '0') * 100 + (s[1] - '0') * 10 + (s[2] - '0'));
    PyObject *line = code != NULL ? PyDict_GetItemWithError(st->plain_lines, code) : NULL;
    static const char start[] = "HTTP/1.1 ";
    const Py_ssize_t start_size = sizeof start - 1;
    if (line == NULL || !PyBytes_CheckExact(line) || PyBytes_GET_SIZE(line) != start_size + size + 2
        || memcmp(PyBytes_AS_STRING(line) + start_size, s, (size_t)size) != 0) {
        Py_CLEAR(code);
    }
    return code;
}

/* 1: done; 0: it is for the reference; -1: an exception. */
static int
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
    const unsigned char *s = PyUnicode_1BYTE_DATA(name);
    Py_ssize_t size = PyUnicode_GET_LENGTH(name);
    if (!is_token(s, size)) {
        return 0;
    }
    if (is_name(s, size, CONTENT_LENGTH, sizeof CONTENT_LENGTH - 1)) {
        return take_length(st, self, (const char *)s, PyUnicode_1BYTE_DATA(value), PyUnicode_GET_LENGTH(value));
    }
    return take_plain(st, self, s, size, PyUnicode_1BYTE_DATA(value), PyUnicode_GET_LENGTH(value));
}

static PyObject *
wsgi_init(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count != 5 || names != NULL || !PyList_CheckExact(args[4])) {
        return NULL;
    }
    PyObject *self = args[0], *code = code_of(st, args[3]);
    PyObject *wire = code != NULL ? PyObject_GetAttr(args[1], st->names.wire) : NULL;
    int found = wire != NULL ? begin(st, self, wire, code, st->version) : -1;
    Py_XDECREF(wire);
    Py_XDECREF(code);
    if (found != 1) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(args[4]); i++) {
        PyObject *field = Py_NewRef(PyList_GET_ITEM(args[4], i));
        found = take_wsgi_field(st, self, field);
        if (found == 0) {
            PyObject *arguments[] = {self, field, args[2]};
            PyObject *result = PyObject_VectorcallMethod(st->names._take_field, arguments, 3, NULL);
            found = result != NULL ? 1 : -1;
            Py_XDECREF(result);
        }
        Py_DECREF(field);
        if (found < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

/* HttpCall. */

static PyObject *
call_init(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count != 3 || names != NULL) {
        return NULL;
    }
    PyObject *self = args[0];
    PyObject *message = PyObject_GetAttr(args[2], st->names.request);
    PyObject *payload = message != NULL ? PyObject_GetAttr(args[2], st->names.body) : NULL;
    if (payload == NULL) {
        Py_XDECREF(message);
        return NULL;
    }
    PUT(CALL, self, C_GATEWAY, Py_NewRef(args[1]));
    PUT(CALL, self, C_EXCHANGE, Py_NewRef(args[2]));
    PUT(CALL, self, C_MESSAGE, message);
    PUT(CALL, self, C_PAYLOAD, payload);
    PUT(CALL, self, C_RESPONSE, Py_NewRef(Py_None));
    PUT(CALL, self, C_PHASE, Py_NewRef(st->numbers[PHASE_HEAD]));
    PUT(CALL, self, C_IS_GONE, Py_NewRef(Py_False));
    PUT(CALL, self, C_WANTS_TRAILERS, Py_NewRef(Py_False));
    Py_RETURN_NONE;
}

/* A key of a message; a new reference, of the default where there is none, or NULL with an exception. */
static PyObject *
get(PyObject *message, PyObject *key, PyObject *missing)
{
    PyObject *value = PyDict_GetItemWithError(message, key);
    return value != NULL ? Py_NewRef(value) : PyErr_Occurred() ? NULL : Py_NewRef(missing);
}

/* Whether a key of a message is true; -1 with an exception. */
static int
is_set(PyObject *message, PyObject *key)
{
    PyObject *value = get(message, key, Py_False);
    int result = value == NULL ? -1 : PyObject_IsTrue(value);
    Py_XDECREF(value);
    return result;
}

/* A response as `http.response.start` has it; NULL without an exception: not a usual one. */
static PyObject *
start(state *st, PyObject *call, PyObject *message)
{
    PyTypeObject *type = st->classes[ASGI_RESPONSE].type;
    PyObject *status = get(message, st->names.status, Py_None);
    PyObject *pairs = status != NULL ? get(message, st->names.headers, Py_None) : NULL;
    PyObject *exchange = Py_XNewRef(GET(CALL, call, C_EXCHANGE)), *request = Py_XNewRef(GET(CALL, call, C_MESSAGE));
    PyObject *gateway = Py_XNewRef(GET(CALL, call, C_GATEWAY));
    PyObject *wire = NULL, *version = NULL, *hop_by_hop = NULL, *response = NULL;
    if (type != NULL && pairs != NULL && (PyList_CheckExact(pairs) || PyTuple_CheckExact(pairs)) && exchange != NULL
        && request != NULL && gateway != NULL) {
        wire = PyObject_GetAttr(exchange, st->names.wire);
        version = wire != NULL ? PyObject_GetAttr(request, st->names.version) : NULL;
        hop_by_hop = version != NULL ? PyObject_GetAttr(gateway, st->names.hop_by_hop) : NULL;
        response = hop_by_hop != NULL ? type->tp_alloc(type, 0) : NULL;
        if (response != NULL
            && (begin(st, response, wire, status, version) != 1 || add_pairs(st, response, pairs, hop_by_hop) < 0)) {
            Py_CLEAR(response);
        }
    }
    Py_XDECREF(hop_by_hop);
    Py_XDECREF(version);
    Py_XDECREF(wire);
    Py_XDECREF(gateway);
    Py_XDECREF(request);
    Py_XDECREF(exchange);
    Py_XDECREF(pairs);
    Py_XDECREF(status);
    return response;
}

static PyObject *
call_send(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count != 2 || names != NULL || !PyDict_CheckExact(args[1])) {
        return NULL;
    }
    PyObject *self = args[0], *message = args[1];
    PyObject *kind = PyDict_GetItemWithError(message, st->names.type);
    PyObject *phase = GET(CALL, self, C_PHASE);
    if (kind == NULL || !PyUnicode_CheckExact(kind) || GET(CALL, self, C_IS_GONE) != Py_False) {
        return NULL;
    }
    if (phase == st->numbers[PHASE_BODY] && PyUnicode_Compare(kind, st->kind_body) == 0) {
        PyObject *body = is_set(message, st->names.more_body) == 0 ? get(message, st->names.body, st->nothing) : NULL;
        PyObject *response = GET(CALL, self, C_RESPONSE);
        int is_sent = 0;
        if (body != NULL && is_exactly(st, ASGI_RESPONSE, response) && GET(CALL, self, C_WANTS_TRAILERS) == Py_False
            && GET(HEAD, response, H_HEADERS_SENT) == Py_False && GET(HEAD, response, H_LENGTH) != Py_None) {
            Py_INCREF(response);
            is_sent = send_whole(st, response, body);
            Py_DECREF(response);
        }
        Py_XDECREF(body);
        if (is_sent != 1) {
            return NULL;
        }
        PUT(CALL, self, C_PHASE, Py_NewRef(st->numbers[PHASE_COMPLETE]));
    }
    else if (phase == st->numbers[PHASE_HEAD] && PyUnicode_Compare(kind, st->kind_start) == 0) {
        PyObject *response = start(st, self, message);
        int has_trailers = response != NULL ? is_set(message, st->names.trailers) : -1;
        if (has_trailers < 0) {
            Py_XDECREF(response);
            return NULL;
        }
        if (has_trailers) {
            PUT(CALL, self, C_WANTS_TRAILERS, Py_NewRef(Py_True));
        }
        PUT(CALL, self, C_RESPONSE, response);
        PUT(CALL, self, C_PHASE, Py_NewRef(st->numbers[PHASE_BODY]));
    }
    else {
        return NULL;
    }
    return Py_NewRef(st->done);
}

/* The methods, as attributes of their classes. */

static PyObject *
call_method(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *names)
{
    method *m = (method *)callable;
    Py_ssize_t count = PyVectorcall_NARGS(nargsf);
    if (m->pure == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the collector of garbage has had this already");
        return NULL;
    }
    if (count > 0 && PyObject_TypeCheck(args[0], m->owner)) {
        PyObject *result = m->function(m->st, args, count, names);
        if (result != NULL || PyErr_Occurred()) {
            return result;
        }
    }
    return PyObject_Vectorcall(m->pure, args, nargsf, names);
}

static PyObject *
bind_method(PyObject *self, PyObject *object, PyObject *type)
{
    (void)type;
    return object == NULL ? Py_NewRef(self) : PyMethod_New(self, object);
}

/* Name, documentation and whatever else there is of a function: those of the reference. */
static PyObject *
attribute_of_method(PyObject *self, PyObject *name)
{
    method *m = (method *)self;
    if (PyUnicode_CompareWithASCIIString(name, "__wrapped__") == 0) {
        return Py_NewRef(m->pure);
    }
    if (PyUnicode_CompareWithASCIIString(name, "__class__") == 0) {
        return PyObject_GenericGetAttr(self, name);
    }
    return PyObject_GetAttr(m->pure, name);
}

static int
visit_method(PyObject *self, visitproc visit, void *arg)
{
    method *m = (method *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(m->owner);
    Py_VISIT(m->pure);
    Py_VISIT(m->module);
    return 0;
}

static int
clear_method(PyObject *self)
{
    method *m = (method *)self;
    Py_CLEAR(m->owner);
    Py_CLEAR(m->pure);
    Py_CLEAR(m->module);
    return 0;
}

static void
free_method(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    clear_method(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef members_of_method[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(method, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots_of_method[] = {
    {Py_tp_call, PyVectorcall_Call},       {Py_tp_descr_get, bind_method}, {Py_tp_getattro, attribute_of_method},
    {Py_tp_traverse, visit_method},        {Py_tp_clear, clear_method},    {Py_tp_dealloc, free_method},
    {Py_tp_members, members_of_method},    {0, NULL},
};

static PyType_Spec spec_of_method = {
    .name = "preforkd.workers.http._heads.method",
    .basicsize = sizeof(method),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR
             | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots_of_method,
};

/* What is known of a class: its slots, and its methods that are here. */
static const struct {
    const char *name;
    const char *slots[SLOTS_MAX];
    struct {
        const char *name;
        usual function;
    } methods[6];
} CLASSES[CLASS_COUNT] = {
    [HEAD] = {"ResponseHead",
              {"_writer", "exchange", "status", "sent_status", "_first_line", "_version", "_close", "lines",
               "content_length", "length_line", "_plain", "_takes_fields", "headers_sent", "ended", "_left",
               "head_is_due", "keeps"},
              {{"__init__", head_init}, {"add_header", head_add_header}, {"render", head_render}}},
    [RESPONSE] = {"Response",
                  {NULL},
                  {{"send_whole", response_send_whole}, {"send_headers", response_send_headers},
                   {"write", response_write}, {"write_eof", response_write_eof}}},
    [WIRE] = {"ResponseWriter",
              {"exchange", "response", "corked", "parts", "due", "paused", "connection", "_intake", "_transport",
               "sent", "_size"},
              {{"flush", writer_flush}}},
    [CONNECTION] = {"HttpConnection", {"persistent", "state"}, {{NULL, NULL}}},
    [INTAKE] = {"Intake", {"continue_is_due", "rest_may_be_long"}, {{NULL, NULL}}},
    [CLOCK] = {"Clock", {"keep_alive_fields", "close_fields"}, {{NULL, NULL}}},
    [CALL] = {"HttpCall",
              {"gateway", "exchange", "message", "payload", "response", "phase", "is_gone", "_wants_trailers"},
              {{"__init__", call_init}, {"send", call_send}}},
    [ASGI_RESPONSE] = {"AsgiResponse", {NULL}, {{"add_pairs", asgi_add_pairs}}},
    [WSGI_RESPONSE] = {"WsgiResponse", {NULL}, {{"__init__", wsgi_init}}},
};

/* Note where the slots of a class lie. */
static int
note_slots(layout *to, PyTypeObject *type, const char *const *names)
{
    for (int i = 0; i < SLOTS_MAX && names[i] != NULL; i++) {
        PyObject *descriptor = PyObject_GetAttrString((PyObject *)type, names[i]);
        if (descriptor == NULL) {
            return -1;
        }
        PyMemberDef *member = Py_IS_TYPE(descriptor, &PyMemberDescr_Type)
                                      && PyType_IsSubtype(type, PyDescr_TYPE(descriptor))
                                  ? ((PyMemberDescrObject *)descriptor)->d_member
                                  : NULL;
        int is_slot = member != NULL && member->type == T_OBJECT_EX && !(member->flags & READONLY);
        to->at[i] = is_slot ? member->offset : 0;
        Py_DECREF(descriptor);
        if (!is_slot) {
            PyErr_Format(PyExc_TypeError, "%s.%s is no slot", type->tp_name, names[i]);
            return -1;
        }
    }
    return 0;
}

static PyObject *
make_method(PyObject *module, PyTypeObject *owner, const char *name, usual function)
{
    state *st = PyModule_GetState(module);
    PyObject *names = PyObject_GetAttrString((PyObject *)owner, "__dict__");
    PyObject *pure = names != NULL ? PyMapping_GetItemString(names, name) : NULL;
    Py_XDECREF(names);
    method *m = pure != NULL ? (method *)st->method_type->tp_alloc(st->method_type, 0) : NULL;
    if (m == NULL) {
        Py_XDECREF(pure);
        return NULL;
    }
    m->vectorcall = call_method;
    m->function = function;
    m->owner = (PyTypeObject *)Py_NewRef((PyObject *)owner);
    m->pure = pure;
    m->module = Py_NewRef(module);
    m->st = st;
    return (PyObject *)m;
}

PyDoc_STRVAR(learn_doc,
             "learn(cls)\n--\n\n"
             "Take note of a class that has a part in responses, once, and return its methods that are here, by name.");

static PyObject *
learn(PyObject *module, PyObject *cls)
{
    state *st = PyModule_GetState(module);
    PyTypeObject *type = (PyTypeObject *)cls;
    int number = 0;
    if (!PyType_Check(cls) || !(type->tp_flags & Py_TPFLAGS_HEAPTYPE)) {
        PyErr_SetString(PyExc_TypeError, "learn() takes a class of Python");
        return NULL;
    }
    while (number < CLASS_COUNT && strcmp(CLASSES[number].name, type->tp_name) != 0) {
        number++;
    }
    if (number == CLASS_COUNT || st->classes[number].type != NULL) {
        PyErr_Format(PyExc_ValueError, "nothing is known here of %s, or it was learned before", type->tp_name);
        return NULL;
    }
    int is_response = number == RESPONSE || number == ASGI_RESPONSE || number == WSGI_RESPONSE;
    if (is_response && (st->classes[HEAD].type == NULL || !PyType_IsSubtype(type, st->classes[HEAD].type))) {
        PyErr_Format(PyExc_TypeError, "%s is no ResponseHead", type->tp_name);
        return NULL;
    }
    layout *one = &st->classes[number];
    if (note_slots(one, type, CLASSES[number].slots) < 0) {
        return NULL;
    }
    PyObject *methods = PyDict_New();
    for (int i = 0; methods != NULL && CLASSES[number].methods[i].name != NULL; i++) {
        const char *name = CLASSES[number].methods[i].name;
        PyObject *m = make_method(module, type, name, CLASSES[number].methods[i].function);
        if (m != NULL && number == ASGI_RESPONSE) {
            Py_XSETREF(st->pure_add_pairs, Py_NewRef(((method *)m)->pure));
        }
        if (m == NULL || PyDict_SetItemString(methods, name, m) < 0) {
            Py_CLEAR(methods);
        }
        Py_XDECREF(m);
    }
    if (methods != NULL) {
        one->type = (PyTypeObject *)Py_NewRef(cls);
    }
    return methods;
}

PyDoc_STRVAR(setup_doc,
             "setup(clock, plain_lines, version, done, active, fields)\n--\n\n"
             "Take what responses are made of; once, before anything else.\n\n"
             "Args:\n"
             "    clock: that of clock.py.\n"
             "    plain_lines: of fields.py.\n"
             "    version: HttpVersion11.\n"
             "    done: that of done.py.\n"
             "    active: ConnectionState.ACTIVE.\n"
             "    fields: the names of fields.py; `_request_id` is read there.\n");

static PyObject *
setup(PyObject *module, PyObject *args)
{
    state *st = PyModule_GetState(module);
    PyObject *clock, *plain_lines, *version, *done, *active, *fields;
    if (!PyArg_ParseTuple(args, "OO!OOOO!", &clock, &PyDict_Type, &plain_lines, &version, &done, &active,
                          &PyDict_Type, &fields)) {
        return NULL;
    }
    if (st->clock != NULL) {
        PyErr_SetString(PyExc_ValueError, "setup() was called before");
        return NULL;
    }
    PyObject *methods = learn(module, (PyObject *)Py_TYPE(clock));
    if (methods == NULL) {
        return NULL;
    }
    Py_DECREF(methods);
    st->clock = Py_NewRef(clock);
    st->plain_lines = Py_NewRef(plain_lines);
    st->version = Py_NewRef(version);
    st->done = Py_NewRef(done);
    st->active = Py_NewRef(active);
    st->fields = Py_NewRef(fields);
    Py_RETURN_NONE;
}

/* The module. */

static int
visit_state(PyObject *module, visitproc visit, void *arg)
{
    state *st = PyModule_GetState(module);
    Py_VISIT(st->method_type);
    for (int i = 0; i < CLASS_COUNT; i++) {
        Py_VISIT(st->classes[i].type);
    }
    Py_VISIT(st->clock);
    Py_VISIT(st->plain_lines);
    Py_VISIT(st->version);
    Py_VISIT(st->done);
    Py_VISIT(st->active);
    Py_VISIT(st->fields);
    Py_VISIT(st->pure_add_pairs);
    return 0;
}

static int
clear_state(PyObject *module)
{
    state *st = PyModule_GetState(module);
    Py_CLEAR(st->method_type);
    for (int i = 0; i < CLASS_COUNT; i++) {
        Py_CLEAR(st->classes[i].type);
    }
    Py_CLEAR(st->clock);
    Py_CLEAR(st->plain_lines);
    Py_CLEAR(st->version);
    Py_CLEAR(st->done);
    Py_CLEAR(st->active);
    Py_CLEAR(st->fields);
    Py_CLEAR(st->pure_add_pairs);
    return 0;
}

static void
free_state(void *module)
{
    state *st = PyModule_GetState(module);
    clear_state(module);
    Py_CLEAR(st->kind_start);
    Py_CLEAR(st->kind_body);
    Py_CLEAR(st->head);
    Py_CLEAR(st->nothing);
    for (int i = 0; i <= PHASE_COMPLETE; i++) {
        Py_CLEAR(st->numbers[i]);
    }
#define CLEAR(name) Py_CLEAR(st->names.name);
    NAMES(CLEAR)
}

static int
execute(PyObject *module)
{
    state *st = PyModule_GetState(module);
    fill_tables();
    st->method_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec_of_method, NULL);
    st->kind_start = PyUnicode_InternFromString("http.response.start");
    st->kind_body = PyUnicode_InternFromString("http.response.body");
    st->head = PyUnicode_InternFromString("HEAD");
    st->nothing = PyBytes_FromStringAndSize(NULL, 0);
    for (int i = 0; i <= PHASE_COMPLETE; i++) {
        st->numbers[i] = PyLong_FromLong(i);
    }
#define INTERN(name) st->names.name = PyUnicode_InternFromString(#name);
    NAMES(INTERN)
    return PyErr_Occurred() ? -1 : 0;
}

static PyMethodDef functions[] = {
    {"setup", setup, METH_VARARGS, setup_doc},
    {"learn", learn, METH_O, learn_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "preforkd.workers.http._heads",
    .m_doc = "The usual response, in C; see head.py and response.py.",
    .m_size = sizeof(state),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = visit_state,
    .m_clear = clear_state,
    .m_free = free_state,
};

PyMODINIT_FUNC
PyInit__heads(void)
{
    return PyModuleDef_Init(&definition);
}
