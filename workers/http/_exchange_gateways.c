/* The responses of ASGI and WSGI, and `send` of ASGI. See `_exchange.h`. */

#include "_exchange.h"
#include <string.h>

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
                text token = {(const unsigned char *)PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name)};
                text said = {(const unsigned char *)PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)};
                found = take_field(st, self, token, said);
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

PyObject *
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

PyObject *
wsgi_init(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count != 5 || names != NULL || !PyList_CheckExact(args[4])) {
        return NULL;
    }
    PyObject *self = args[0], *code = code_of(st, args[3]);
    PyObject *wire = code != NULL ? ATTRIBUTE(EXCHANGE, args[1], EXCHANGE_WIRE, wire) : NULL;
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

/* Call, of WSGI. */

PyObject *
wsgi_start_response(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyTypeObject *type = st->classes[WSGI_RESPONSE].type;
    if (count != 3 || names != NULL || type == NULL) {
        return NULL;
    }
    PyObject *begun = PyObject_GetAttr(args[0], st->names.begun);
    Py_XDECREF(begun);
    if (begun != Py_None) {
        return NULL;
    }
    PyObject *exchange = PyObject_GetAttr(args[0], st->names.exchange), *result = NULL;
    PyObject *hop_by_hop = exchange != NULL ? PyObject_GetAttr(args[0], st->names.hop_by_hop) : NULL;
    PyObject *response = hop_by_hop != NULL ? type->tp_alloc(type, 0) : NULL;
    if (response != NULL) {
        PyObject *arguments[] = {response, exchange, hop_by_hop, args[1], args[2]};
        PyObject *nothing = wsgi_init(st, arguments, 5, NULL);
        if (nothing != NULL && PyObject_SetAttr(args[0], st->names.begun, response) == 0) {
            result = PyObject_GetAttr(args[0], st->names.write);
        }
        Py_XDECREF(nothing);
    }
    Py_XDECREF(response);
    Py_XDECREF(hop_by_hop);
    Py_XDECREF(exchange);
    return result;
}

/* EnvironSource, and Templates of ASGI: `_described.c` asked without a call of Python. */

/* What a function of C has made; NULL without an exception: it has left that to the reference. */
static PyObject *
made_by(PyObject *function, PyObject *const *arguments, Py_ssize_t count)
{
    if (function == NULL || function == Py_None) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (arguments[i] == NULL) {
            return NULL;
        }
    }
    Py_INCREF(function);
    PyObject *made = PyObject_Vectorcall(function, arguments, (size_t)count, NULL);
    Py_DECREF(function);
    if (made == Py_None) {
        Py_CLEAR(made);
    }
    return made;
}

PyObject *
environs_environ(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count != 3 || names != NULL) {
        return NULL;
    }
    PyObject *arguments[] = {GET(ENVIRONS, args[0], ENVIRONS_BASE), GET(ENVIRONS, args[0], ENVIRONS_VARIABLES), args[1],
                             args[2]};
    return made_by(GET(ENVIRONS, args[0], ENVIRONS_USUAL), arguments, 4);
}

PyObject *
templates_http(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count != 3 || names != NULL) {
        return NULL;
    }
    PyObject *arguments[] = {GET(TEMPLATES, args[0], TEMPLATES_HTTP), GET(TEMPLATES, args[0], TEMPLATES_STATE),
                             GET(TEMPLATES, args[0], TEMPLATES_EXTENSIONS), args[1], args[2]};
    return made_by(GET(TEMPLATES, args[0], TEMPLATES_USUAL), arguments, 5);
}

/* HttpCall. */

PyObject *
call_init(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count != 3 || names != NULL) {
        return NULL;
    }
    PyObject *self = args[0];
    PyObject *message = ATTRIBUTE(EXCHANGE, args[2], EXCHANGE_REQUEST, request);
    PyObject *payload = message != NULL ? ATTRIBUTE(EXCHANGE, args[2], EXCHANGE_BODY, body) : NULL;
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
        wire = ATTRIBUTE(EXCHANGE, exchange, EXCHANGE_WIRE, wire);
        version = wire != NULL ? ATTRIBUTE(MESSAGE, request, MESSAGE_VERSION, version) : NULL;
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

PyObject *
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
