/* The usual exchange, in C (`_exchange*.c`): the way of a request from its bytes, by its handler, to its end
 * (`_exchange_flow.c`), and its response: what `connection.py` and its parts, `head.py`, `response.py` and the gateways do for
 * them, and nothing else.
 *
 * The classes are those of Python, in both forms. A method here does what the one of the same name does in the usual
 * case; in every other one it has done nothing and calls that, the reference. So nothing is refused here, and no rule
 * has to be known here that is not about a usual exchange. `tests/workers/http/test_heads.py` and `test_flow.py` compare the two.
 *
 * Attributes are read and written where the slots of their classes lie (`learn()`). One that was deleted is NULL: that
 * is no usual case either.
 */

#ifndef PREFORKD_EXCHANGE_H
#define PREFORKD_EXCHANGE_H

#include "_slots.h"

#pragma GCC visibility push(hidden) /* it is one module, of several files */

/* The classes, each with its slots in the order of their names in `CLASSES`. */
enum {
    HEAD, RESPONSE, WIRE, CONNECTION, INTAKE, CLOCK, CALL, ASGI_RESPONSE, WSGI_RESPONSE, MESSAGE, PARSER, TIMES, EDGE, RUNNER,
    WAKEUP, DEFERRED, HANDLING, REPORTING, EXCHANGE, HOST,
    WSGI_CALL, ENVIRONS, TEMPLATES, CONNECTIONS, THREAD_CALL, ANSWER, CLASS_COUNT
};
enum {
    H_WIRE, H_EXCHANGE, H_STATUS, H_SENT_STATUS, H_FIRST_LINE, H_VERSION, H_CLOSE, H_LINES, H_LENGTH, H_LENGTH_LINE,
    H_PLAIN, H_TAKES_FIELDS, H_HEADERS_SENT, H_ENDED, H_LEFT, H_HEAD_IS_DUE, H_KEEPS
};
enum { W_EXCHANGE, W_RESPONSE, W_CORKED, W_PARTS, W_DUE, W_PAUSED, W_CONNECTION, W_INTAKE, W_TRANSPORT, W_SENT, W_SIZE };
enum {
    CONNECTION_PERSISTENT, CONNECTION_STATE, CONNECTION_REQUESTS, CONNECTION_CLIENT_FINISHED, CONNECTION_SERVICE,
    CONNECTION_INTAKE, CONNECTION_RUNNER, CONNECTION_HANDLING, CONNECTION_PEER_IS_TRUSTED, CONNECTION_SPEAKS_FOR_OTHERS
};
enum {
    INTAKE_CONTINUE_IS_DUE, INTAKE_REST_MAY_BE_LONG, INTAKE_CONNECTION, INTAKE_EDGE, INTAKE_TIMES, INTAKE_MESSAGE,
    INTAKE_PARSER, INTAKE_PAYLOAD, INTAKE_PHASE, INTAKE_TAIL
};
enum { CLOCK_KEEP_ALIVE, CLOCK_CLOSE };
enum { C_GATEWAY, C_EXCHANGE, C_MESSAGE, C_PAYLOAD, C_RESPONSE, C_PHASE, C_IS_GONE, C_WANTS_TRAILERS };
enum {
    MESSAGE_CHUNKED, MESSAGE_COMPRESSION, MESSAGE_CONTENT_LENGTH, MESSAGE_HAS_UPGRADE, MESSAGE_HEAD_SIZE, MESSAGE_ID_LINE,
    MESSAGE_METHOD, MESSAGE_NOTED, MESSAGE_SHOULD_CLOSE, MESSAGE_VERSION
};
enum {
    EXCHANGE_REQUEST, EXCHANGE_BODY, EXCHANGE_WIRE, EXCHANGE_CARRIER, EXCHANGE_OBSERVER, EXCHANGE_KEEP_ALIVE, EXCHANGE_BEGAN,
    EXCHANGE_DEFERRED, EXCHANGE_IS_LOGGED, EXCHANGE_HAS_EXPIRED, EXCHANGE_HAS_WAITED, EXCHANGE_KEEPS_TASK,
    EXCHANGE_NEEDS_NO_ANSWER
};
enum { CONNECTIONS_ACTIVE };
enum {
    T_APP, T_ENVIRONS, T_CLIENT, T_EXCHANGE, T_ANSWER, T_HOP_BY_HOP, T_POST, T_BEGUN, T_BODY, T_HINTS, T_INPUT, T_CONTEXT,
    T_OPEN, T_COMMITTED, T_POSTED, T_COMPLETE, T_ENDED, T_ABANDONED, T_QUEUE_SECONDS, T_DUE
};
enum {
    ANSWER_GATEWAY, ANSWER_POOL, ANSWER_WIRE, ANSWER_CALL, ANSWER_EXCHANGE, ANSWER_PAYLOAD, ANSWER_RESPONSE, ANSWER_ERROR,
    ANSWER_WRITTEN
};
enum { HOST_ALLOWED_METHODS };
enum { ENVIRONS_USUAL, ENVIRONS_BASE, ENVIRONS_VARIABLES };
enum { TEMPLATES_USUAL, TEMPLATES_HTTP, TEMPLATES_STATE, TEMPLATES_EXTENSIONS };
enum {
    PARSER_PARTIAL, PARSER_USUAL_HEAD, PARSER_LIMIT_HEADERS, PARSER_LIMIT_BODY, PARSER_SHORT, PARSER_CONSUMED,
    PARSER_IN_BODY, PARSER_BODY_RECEIVED, PARSER_LEFT, PARSER_CHUNKED
};
enum { TIMES_HEAD };
enum { EDGE_IDS };
enum { RUNNER_INTAKE, RUNNER_LOOP, RUNNER_WRITER, RUNNER_CONTEXT, RUNNER_REST, RUNNER_TASK, RUNNER_WAKEUP, RUNNER_WORK };
enum { WAKEUP_CALLBACK, WAKEUP_HELD };
enum {
    HANDLING_CONNECTION, HANDLING_CONNECTIONS, HANDLING_HAS_GUARD, HANDLING_INTAKE, HANDLING_LAST_REQUEST,
    HANDLING_REPORTING, HANDLING_RUNNER, HANDLING_WRITER
};
enum { REPORTING_COUNT, REPORTING_LOGGING, REPORTING_WANTS_TIME };

enum { PHASE_OF_HEAD = 0, PHASE_OF_KEEP = 2, PHASE_OF_DISCARD = 4, PHASE_OF_FOREIGN = 5, PHASES = 6 }; /* of intake.py */
enum { PHASE_HEAD = 0, PHASE_BODY = 1, PHASE_COMPLETE = 4 }; /* of http_call.py */

/* Names of attributes and keys. */
#define NAMES(X)                                                                                                       \
    X(_after_handler) X(_begin_body) X(_begun) X(_fail) X(_failed) X(_request_id) X(_rest_of) X(_serve) X(_take)       \
    X(_take_field) X(_take_request) X(_write_line) X(active) X(allowed_methods) X(await_now) X(began) X(begun)         \
    X(body) X(carrier) X(complete) X(deferred) X(early_hints) X(end) X(end_deferred) X(end_job) X(environ)             \
    X(exchange) X(flush) X(go_on) X(handler_waits) X(has_waited) X(headers) X(hold_back) X(hop_by_hop)                 \
    X(http_version) X(id_line) X(is_closing) X(is_last) X(is_logged) X(keep_alive) X(loop) X(method) X(more_body)      \
    X(post) X(proceed) X(process_request) X(render) X(request) X(serve) X(should_close) X(start_response) X(status)    \
    X(strayed) X(submit) X(take) X(take_tail) X(take_usual) X(trailers) X(type) X(version) X(wake) X(wire) X(write)
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
    PyObject *pure_add_pairs, *pure_take_head;
    PyTypeObject *connection_type; /* the last class of connections that `is_connection()` has looked at, and found as it should be */
    unsigned connection_version;
    PyObject *kind_start, *kind_body, *head;
    PyObject *nothing; /* b"" */
    PyObject *numbers[PHASE_COMPLETE + 1];
    /* From here on: see `setup_flow()`; NULL until then. */
    PyObject *phases[PHASES]; /* of intake.py */
    PyObject *new, *idle;     /* of ConnectionState */
    PyObject *empty_payload, *whole_payload, *unobserved;
    PyObject *offspring; /* dict: the names of offspring.py */
    PyObject *enter_task, *leave_task, *monotonic, *raising, *steps_of;
    PyObject *bytes_io; /* io.BytesIO */
    PyObject *zero, *is_last, *input, *early_hints;
    long tells; /* of names.py */
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

int is_connection_type(state *st, PyTypeObject *type);

/* Whether it is a connection whose attributes are those of the base class, and not properties of a class of an app. */
static inline int
is_connection(state *st, PyObject *object)
{
    if (object == NULL) {
        return 0;
    }
    PyTypeObject *type = Py_TYPE(object);
    return (type == st->connection_type && type->tp_version_tag == st->connection_version
            && type->tp_version_tag != 0) /* it changes with the class */
           || is_connection_type(st, type);
}

/* An attribute, where it lies if the object is of that class; a new reference. */
static inline PyObject *
attribute_of(state *st, int class, PyObject *object, int number, PyObject *name)
{
    PyObject *value = is_exactly(st, class, object) ? GET(class, object, number) : NULL;
    return value != NULL ? Py_NewRef(value) : PyObject_GetAttr(object, name);
}

#define ATTRIBUTE(class, object, number, name) (attribute_of(st, class, object, number, st->names.name))

/* _exchange_fields.c. 1: done; 0: it is not usual, and nothing has been done; -1: an exception. */

typedef struct {
    const unsigned char *s;
    Py_ssize_t size;
} text;

void fill_tables(void);
int take_field(state *st, PyObject *self, text name, text value);
int take_wsgi_field(state *st, PyObject *self, PyObject *field);
int takes_fields(state *st, PyObject *self);

/* _exchange_flow.c */

int is_ready(state *st);
PyObject *taken_exception(void);
int raise_again(PyObject *exc);

/* _exchange_response.c. As of _exchange_fields.c. */

int begin(state *st, PyObject *self, PyObject *wire, PyObject *status, PyObject *version);
int send_whole(state *st, PyObject *self, PyObject *body);

/* The methods, each named after its class and its name in Python. */

#define METHODS(X)                                                                                                     \
    X(head_init) X(head_add_header) X(head_render) X(response_send_whole) X(response_send_headers)                     \
    X(response_write) X(response_write_eof) X(writer_flush) X(asgi_add_pairs) X(wsgi_init) X(call_init)                \
    X(call_send) X(connection_data_received) X(intake_take_head) X(edge_take) X(runner_proceed) X(runner_go_on)        \
    X(handling_process_request) X(handling_after_handler) X(reporting_complete) X(connection_end_deferred)             \
    X(wsgi_start_response) X(environs_environ) X(templates_http) X(thread_call_init) X(thread_call_run)                \
    X(thread_call_advance) X(answer_of) X(answer_take)
#define DECLARE(name) PyObject *name(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names);
METHODS(DECLARE)

#pragma GCC visibility pop

#endif
