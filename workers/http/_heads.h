/* The usual response, in C (`_heads*.c`): what `head.py`, `response.py`, `writer.py` and the gateways do for it, and nothing else.
 *
 * The classes are those of Python, in both forms. A method here does what the one of the same name does in the usual
 * case; in every other one it has done nothing and calls that, the reference. So nothing is refused here, and no rule
 * has to be known here that is not about a usual response. `tests/workers/http/test_heads.py` compares the two.
 *
 * Attributes are read and written where the slots of their classes lie (`learn()`). One that was deleted is NULL: that
 * is no usual case either.
 */

#ifndef PREFORKD_HEADS_H
#define PREFORKD_HEADS_H

#include "_slots.h"

#pragma GCC visibility push(hidden) /* it is one module, of several files */

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

/* Slots. */

#define GET(class, object, number) (*place_of(&st->classes[class], object, number)) /* borrowed */
#define PUT(class, object, number, value) set_slot(&st->classes[class], object, number, value)

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

/* _heads_fields.c. 1: done; 0: it is not usual, and nothing has been done; -1: an exception. */

typedef struct {
    const unsigned char *s;
    Py_ssize_t size;
} text;

void fill_tables(void);
int take_field(state *st, PyObject *self, text name, text value);
int take_wsgi_field(state *st, PyObject *self, PyObject *field);
int takes_fields(state *st, PyObject *self);

/* _heads_response.c. As above. */

int begin(state *st, PyObject *self, PyObject *wire, PyObject *status, PyObject *version);
int send_whole(state *st, PyObject *self, PyObject *body);

/* The methods, each named after its class and its name in Python. */

#define METHODS(X)                                                                                                     \
    X(head_init) X(head_add_header) X(head_render) X(response_send_whole) X(response_send_headers) X(response_write)   \
    X(response_write_eof) X(writer_flush) X(asgi_add_pairs) X(wsgi_init) X(call_init) X(call_send)
#define DECLARE(name) PyObject *name(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names);
METHODS(DECLARE)

#pragma GCC visibility pop

#endif
