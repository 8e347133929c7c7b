/* ResponseHead, Response and ResponseWriter. See `_exchange.h`. */

#include "_exchange.h"
#include <string.h>

enum { JOIN_BELOW = 32768 }; /* of writer.py */

/* The wire of a response if it is that of HTTP/1.1; borrowed, else NULL. */
static inline PyObject *
wire_of(state *st, PyObject *response)
{
    PyObject *wire = GET(HEAD, response, H_WIRE);
    return is_exactly(st, WIRE, wire) ? wire : NULL;
}

/* What is asked has raised an exception before anything was done: the reference may ask in another order. */
static void
forget_exception(void)
{
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyErr_Clear();
    }
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
    PyObject *name = ATTRIBUTE(MESSAGE, request, MESSAGE_METHOD, method);
    int result = name == NULL ? -1 : PyObject_RichCompareBool(name, st->head, Py_EQ);
    Py_XDECREF(name);
    return result;
}

/* ResponseHead. */

/* Fill the slots of a response. 1: done; 0: it is not a usual one; -1: an exception. */
int
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

PyObject *
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

PyObject *
head_add_header(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count != 3 || names != NULL || !takes_fields(st, args[0]) || !PyUnicode_CheckExact(args[1])
        || !PyUnicode_CheckExact(args[2]) || !PyUnicode_IS_COMPACT_ASCII(args[1])
        || !PyUnicode_IS_COMPACT_ASCII(args[2])) {
        return NULL;
    }
    text name = {PyUnicode_1BYTE_DATA(args[1]), PyUnicode_GET_LENGTH(args[1])};
    text value = {PyUnicode_1BYTE_DATA(args[2]), PyUnicode_GET_LENGTH(args[2])};
    return take_field(st, args[0], name, value) == 1 ? Py_NewRef(Py_None) : NULL;
}

/* Whether the connection stays open: `ResponseWriter.may_stay_open()`. -1: an exception; 2: nobody knows. */
static int
may_stay_open(state *st, PyObject *wire, PyObject *request)
{
    PyObject *connection = GET(WIRE, wire, W_CONNECTION), *intake = GET(WIRE, wire, W_INTAKE);
    if (!is_connection(st, connection) || !is_exactly(st, INTAKE, intake)) {
        return 2;
    }
    PyObject *persistent = GET(CONNECTION, connection, CONNECTION_PERSISTENT);
    if (persistent != Py_True || GET(INTAKE, intake, INTAKE_CONTINUE_IS_DUE) != Py_False
        || GET(INTAKE, intake, INTAKE_REST_MAY_BE_LONG) != Py_False) {
        return persistent == Py_False ? 0 : 2;
    }
    PyObject *said = ATTRIBUTE(MESSAGE, request, MESSAGE_SHOULD_CLOSE, should_close);
    int closes = said == NULL ? -1 : PyObject_IsTrue(said);
    Py_XDECREF(said);
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

PyObject *
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
    PyObject *request = ATTRIBUTE(EXCHANGE, exchange, EXCHANGE_REQUEST, request);
    PyObject *id_line = NULL, *joined = NULL;
    int keeps = request == NULL || request == Py_None ? -1 : attribute_is_true(exchange, st->names.keep_alive);
    if (keeps == 1) {
        keeps = close == Py_False ? may_stay_open(st, wire, request) : 0;
    }
    if (keeps == 0 || keeps == 1) {
        id_line = ATTRIBUTE(MESSAGE, request, MESSAGE_ID_LINE, id_line);
    }
    if (id_line != NULL) {
        PyObject *fields = GET(CLOCK, st->clock, keeps ? CLOCK_KEEP_ALIVE : CLOCK_CLOSE);
        joined = join(GET(HEAD, self, H_FIRST_LINE), GET(HEAD, self, H_LINES), id_line, fields, args[1]);
    }
    if (joined != NULL) {
        PUT(HEAD, self, H_HEAD_IS_DUE, Py_NewRef(Py_False));
        PUT(HEAD, self, H_KEEPS, PyBool_FromLong(keeps));
    }
    else {
        forget_exception();
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
int
send_whole(state *st, PyObject *self, PyObject *body)
{
    PyObject *wire = wire_of(st, self), *exchange = wire != NULL ? waiting_exchange(st, self, wire) : NULL;
    if (exchange == NULL || !PyBytes_CheckExact(body) || GET(WIRE, wire, W_PAUSED) != Py_False) {
        return 0;
    }
    Py_INCREF(wire);
    Py_INCREF(exchange);
    PyObject *request = ATTRIBUTE(EXCHANGE, exchange, EXCHANGE_REQUEST, request);
    int is_head = request == NULL ? -1 : asks_for_head(st, request);
    int result = 0;
    forget_exception();
    PyObject *lines = GET(HEAD, self, H_LINES), *parts = GET(WIRE, wire, W_PARTS);
    PyObject *status = GET(HEAD, self, H_STATUS);
    long code = is_head == 0 && status != NULL && PyLong_CheckExact(status) ? PyLong_AsLong(status) : 0;
    if (code == -1) {
        PyErr_Clear(); /* it is too large */
    }
    if (code > 0 && code != 204 && code != 205 && code != 304 && lines != NULL
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

PyObject *
response_send_whole(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count != 2 || names != NULL) {
        return NULL;
    }
    return send_whole(st, args[0], args[1]) == 1 ? Py_NewRef(Py_True) : NULL;
}

PyObject *
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
    PyObject *carrier = ATTRIBUTE(EXCHANGE, exchange, EXCHANGE_CARRIER, carrier);
    PyObject *request = carrier != NULL && is_connection(st, carrier)
                                && GET(CONNECTION, carrier, CONNECTION_STATE) == st->active
                            ? ATTRIBUTE(EXCHANGE, exchange, EXCHANGE_REQUEST, request)
                            : NULL;
    int is_head = request == NULL || request == Py_None ? -1 : asks_for_head(st, request);
    forget_exception();
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

PyObject *
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

PyObject *
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

/* Our TLS has an end of its own to send: have it wait for that. 0: an exception. */
static int
hold_back(state *st, PyObject *transport)
{
    PyObject *method = PyObject_GetAttr(transport, st->names.hold_back);
    if (method == NULL) {
        return PyErr_ExceptionMatches(PyExc_AttributeError) ? (PyErr_Clear(), 1) : 0;
    }
    PyObject *nothing = PyObject_CallNoArgs(method);
    Py_DECREF(method);
    Py_XDECREF(nothing);
    return nothing != NULL;
}

PyObject *
writer_flush(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *self = args[0], *response = GET(WIRE, self, W_RESPONSE), *parts = GET(WIRE, self, W_PARTS);
    PyObject *transport = GET(WIRE, self, W_TRANSPORT), *sent = GET(WIRE, self, W_SENT);
    int is_last = names != NULL && PyTuple_GET_SIZE(names) == 1 && PyTuple_GET_ITEM(names, 0) == st->names.is_last;
    if (count != 1 || (names != NULL && !is_last) || (is_last && args[1] != Py_True) || !is_one(st, HEAD, response) || GET(HEAD, response, H_HEAD_IS_DUE) != Py_True
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
        if (is_last && GET(HEAD, response, H_ENDED) == Py_True && GET(HEAD, response, H_KEEPS) == Py_False
            && GET(WIRE, self, W_PAUSED) == Py_False && !hold_back(st, transport)) {
            goto end_with_transport;
        }
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
