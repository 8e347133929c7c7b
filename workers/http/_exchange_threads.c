/* A WSGI call in a thread, and what the loop takes of it. See `_exchange.h`.
 *
 * What is usual: no upgrade, a body that the app returns as one piece in a list, and which is short; a client that is
 * there. Each function runs with the interpreter's lock held, and hands over as `thread_call.py` says: a field is
 * written before the other side is told to look at it.
 */

#include "_exchange.h"

enum { FLUSH_FIRST = 32768 }; /* of answer.py */

PyObject *
thread_call_init(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (st->zero == NULL || count != 6 || names != NULL || !is_exactly(st, ANSWER, args[5])) {
        return NULL;
    }
    PyObject *gateway = GET(ANSWER, args[5], ANSWER_GATEWAY), *pool = GET(ANSWER, args[5], ANSWER_POOL);
    PyObject *hop_by_hop = gateway != NULL && pool != NULL ? PyObject_GetAttr(gateway, st->names.hop_by_hop) : NULL;
    PyObject *post = hop_by_hop != NULL ? PyObject_GetAttr(pool, st->names.post) : NULL;
    if (post == NULL) {
        Py_XDECREF(hop_by_hop);
        return NULL;
    }
    PyObject *self = args[0];
    PUT(THREAD_CALL, self, T_APP, Py_NewRef(args[1]));
    PUT(THREAD_CALL, self, T_ENVIRONS, Py_NewRef(args[2]));
    PUT(THREAD_CALL, self, T_CLIENT, Py_NewRef(args[3]));
    PUT(THREAD_CALL, self, T_EXCHANGE, Py_NewRef(args[4]));
    PUT(THREAD_CALL, self, T_ANSWER, Py_NewRef(args[5]));
    PUT(THREAD_CALL, self, T_HOP_BY_HOP, hop_by_hop);
    PUT(THREAD_CALL, self, T_POST, post);
    for (int i = T_BEGUN; i <= T_OPEN; i++) {
        PUT(THREAD_CALL, self, i, Py_NewRef(Py_None));
    }
    for (int i = T_COMMITTED; i <= T_ABANDONED; i++) {
        PUT(THREAD_CALL, self, i, Py_NewRef(Py_False));
    }
    PUT(THREAD_CALL, self, T_QUEUE_SECONDS, Py_NewRef(st->zero));
    PUT(THREAD_CALL, self, T_DUE, Py_NewRef(st->zero));
    Py_RETURN_NONE;
}

/* The thread's side. */

/* `ThreadCall._call()`. -1: an exception. */
static int
call_app(state *st, PyObject *self, PyObject *environ)
{
    PyObject *input = Py_XNewRef(GET(THREAD_CALL, self, T_INPUT)), *app = Py_XNewRef(GET(THREAD_CALL, self, T_APP));
    if (input == Py_None) {
        Py_SETREF(input, PyObject_CallNoArgs(st->bytes_io));
    }
    PyObject *hints = input != NULL ? PyObject_GetAttr(self, st->names.early_hints) : NULL;
    PyObject *start = hints != NULL ? PyObject_GetAttr(self, st->names.start_response) : NULL, *result = NULL;
    if (start != NULL && PyDict_SetItem(environ, st->input, input) == 0
        && PyDict_SetItem(environ, st->early_hints, hints) == 0) {
        PyObject *arguments[] = {environ, start};
        result = PyObject_Vectorcall(app, arguments, 2, NULL);
    }
    Py_XDECREF(start);
    Py_XDECREF(hints);
    Py_XDECREF(app);
    Py_XDECREF(input);
    Py_DECREF(environ); /* a stream may last, and need it no more */
    if (result == NULL) {
        return -1;
    }
    PyObject *begun = GET(THREAD_CALL, self, T_BEGUN), *only = NULL;
    if (PyList_CheckExact(result) && PyList_GET_SIZE(result) == 1 && PyBytes_CheckExact(PyList_GET_ITEM(result, 0))
        && GET(THREAD_CALL, self, T_COMMITTED) == Py_False && begun != NULL && begun != Py_None) {
        only = Py_NewRef(PyList_GET_ITEM(result, 0));
        PUT(THREAD_CALL, self, T_BODY, only);
        PUT(THREAD_CALL, self, T_COMPLETE, Py_NewRef(Py_True));
        Py_DECREF(result);
        return 0;
    }
    PyObject *nothing = PyObject_CallMethodOneArg(self, st->names._take, result);
    Py_DECREF(result);
    Py_XDECREF(nothing);
    return nothing != NULL ? 0 : -1;
}

/* Make the environ, in a context of the call's own, and call the app. -1: an exception. */
static int
call_in_context(state *st, PyObject *self, PyObject *request)
{
    PyObject *context = PyContext_New();
    if (context == NULL || PyContext_Enter(context) < 0) {
        Py_XDECREF(context);
        return -1;
    }
    PyObject *arguments[] = {GET(THREAD_CALL, self, T_ENVIRONS), request, GET(THREAD_CALL, self, T_CLIENT)};
    PyObject *environ = PyObject_VectorcallMethod(st->names.environ, arguments, 3, NULL);
    int failed = environ == NULL;
    if (environ != NULL && !PyDict_CheckExact(environ)) {
        PyErr_SetString(PyExc_TypeError, "an environ is a dict");
        Py_DECREF(environ);
        failed = 1;
    }
    failed = failed || call_app(st, self, environ) < 0;
    PyObject *exc = failed ? taken_exception() : NULL;
    failed = PyContext_Exit(context) < 0;
    failed = raise_again(exc) || failed;
    if (!failed && GET(THREAD_CALL, self, T_OPEN) != Py_None) {
        PUT(THREAD_CALL, self, T_CONTEXT, Py_NewRef(context));
    }
    Py_DECREF(context);
    return failed ? -1 : 0;
}

PyObject *
thread_call_run(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *self = args[0], *exchange = GET(THREAD_CALL, self, T_EXCHANGE), *post = GET(THREAD_CALL, self, T_POST);
    PyObject *request = is_exactly(st, EXCHANGE, exchange) ? GET(EXCHANGE, exchange, EXCHANGE_REQUEST) : NULL;
    if (st->bytes_io == NULL || count != 1 || names != NULL || GET(THREAD_CALL, self, T_CONTEXT) != Py_None
        || GET(THREAD_CALL, self, T_DUE) != st->zero || GET(THREAD_CALL, self, T_ABANDONED) != Py_False || post == NULL
        || GET(THREAD_CALL, self, T_APP) == NULL || GET(THREAD_CALL, self, T_INPUT) == NULL
        || GET(THREAD_CALL, self, T_ENVIRONS) == NULL || GET(THREAD_CALL, self, T_CLIENT) == NULL
        || !is_exactly(st, MESSAGE, request) || GET(MESSAGE, request, MESSAGE_HAS_UPGRADE) != Py_False) {
        return NULL;
    }
    Py_INCREF(post);
    Py_INCREF(request);
    int failed = 0;
    if (call_in_context(st, self, request) < 0) {
        PyObject *exc = taken_exception();
        PyObject *nothing = exc != NULL ? PyObject_CallMethodOneArg(self, st->names._fail, exc) : NULL;
        failed = nothing == NULL;
        Py_XDECREF(nothing);
        Py_XDECREF(exc);
        if (!failed) {
            PUT(THREAD_CALL, self, T_ENDED, Py_NewRef(Py_True));
        }
    }
    else { /* what has returned a file runs once more, to close it */
        PUT(THREAD_CALL, self, GET(THREAD_CALL, self, T_CONTEXT) != Py_None ? T_COMPLETE : T_ENDED, Py_NewRef(Py_True));
    }
    PyObject *result = failed ? NULL : PyObject_CallOneArg(post, self);
    Py_DECREF(request);
    Py_DECREF(post);
    if (result != NULL) {
        Py_SETREF(result, Py_NewRef(Py_None));
    }
    return result;
}

/* The loop's side. */

PyObject *
answer_of(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *self = args[0], *pool = GET(ANSWER, self, ANSWER_POOL);
    PyObject *call = count == 2 && names == NULL && is_exactly(st, THREAD_CALL, args[1]) ? args[1] : NULL;
    PyObject *exchange = call != NULL ? GET(THREAD_CALL, call, T_EXCHANGE) : NULL;
    if (!is_exactly(st, EXCHANGE, exchange) || pool == NULL) {
        return NULL;
    }
    PUT(ANSWER, self, ANSWER_CALL, Py_NewRef(call));
    PUT(ANSWER, self, ANSWER_EXCHANGE, Py_NewRef(exchange));
    PUT(EXCHANGE, exchange, EXCHANGE_OBSERVER, Py_NewRef(self));
    PUT(ANSWER, self, ANSWER_PAYLOAD, Py_NewRef(Py_None));
    PUT(ANSWER, self, ANSWER_RESPONSE, Py_NewRef(Py_None));
    PUT(ANSWER, self, ANSWER_ERROR, Py_NewRef(Py_None));
    PUT(ANSWER, self, ANSWER_WRITTEN, Py_NewRef(st->numbers[0]));
    PyObject *nothing = PyObject_CallMethodOneArg(pool, st->names.submit, call);
    Py_XDECREF(nothing);
    return nothing != NULL ? Py_NewRef(self) : NULL;
}

/* `Answer.take()`. 1: done; 0: it is not usual, and nothing has been done; -1: an exception. */
static int
take(state *st, PyObject *self, PyObject *call)
{
    PyObject *body = GET(THREAD_CALL, call, T_BODY), *response = GET(THREAD_CALL, call, T_BEGUN);
    PyObject *wire = GET(ANSWER, self, ANSWER_WIRE), *pool = GET(ANSWER, self, ANSWER_POOL);
    PyObject *exchange = GET(ANSWER, self, ANSWER_EXCHANGE), *error = GET(ANSWER, self, ANSWER_ERROR);
    if (!is_ready(st) || GET(ANSWER, self, ANSWER_CALL) != call || GET(ANSWER, self, ANSWER_PAYLOAD) != Py_None
        || GET(THREAD_CALL, call, T_ENDED) != Py_True || GET(THREAD_CALL, call, T_COMPLETE) != Py_True
        || GET(THREAD_CALL, call, T_HINTS) != Py_None || body == NULL || !PyBytes_CheckExact(body)
        || PyBytes_GET_SIZE(body) > FLUSH_FIRST || !is_exactly(st, WSGI_RESPONSE, response) || !is_exactly(st, WIRE, wire)
        || pool == NULL || error != Py_None || !is_exactly(st, EXCHANGE, exchange)
        || GET(EXCHANGE, exchange, EXCHANGE_DEFERRED) != self) {
        return 0;
    }
    PyObject *corked = GET(WIRE, wire, W_CORKED);
    if (corked != Py_False) {
        return 0;
    }
    PUT(WIRE, wire, W_CORKED, Py_NewRef(Py_True));
    if (send_whole(st, response, body) != 1) {
        PUT(WIRE, wire, W_CORKED, Py_NewRef(Py_False));
        return PyErr_Occurred() ? -1 : 0;
    }
    Py_INCREF(wire);
    Py_INCREF(exchange);
    PUT(THREAD_CALL, call, T_POSTED, Py_NewRef(Py_False));
    PUT(THREAD_CALL, call, T_ENDED, Py_NewRef(Py_False));
    PUT(ANSWER, self, ANSWER_CALL, Py_NewRef(Py_None));
    PUT(ANSWER, self, ANSWER_EXCHANGE, Py_NewRef(Py_None));
    PyObject *nothing = PyObject_CallMethodNoArgs(pool, st->names.end_job);
    PyObject *carrier = nothing != NULL ? ATTRIBUTE(EXCHANGE, exchange, EXCHANGE_CARRIER, carrier) : NULL;
    Py_XDECREF(nothing);
    PyObject *arguments[] = {carrier, exchange, Py_None};
    nothing = carrier != NULL ? PyObject_VectorcallMethod(st->names.end_deferred, arguments, 3, NULL) : NULL;
    Py_XDECREF(carrier);
    int failed = nothing == NULL;
    Py_XDECREF(nothing);
    if (failed && PyErr_ExceptionMatches(PyExc_Exception)) { /* it is the task's to answer */
        PyObject *exc = taken_exception();
        PyObject *failure[] = {self, call, exc};
        nothing = exc != NULL ? PyObject_VectorcallMethod(st->names._fail, failure, 3, NULL) : NULL;
        failed = nothing == NULL;
        Py_XDECREF(nothing);
        Py_XDECREF(exc);
    }
    PyObject *exc = failed ? taken_exception() : NULL;
    failed = 0;
    PUT(WIRE, wire, W_CORKED, Py_NewRef(Py_False));
    if (GET(WIRE, wire, W_DUE) != Py_False) {
        nothing = PyObject_CallMethodNoArgs(wire, st->names.flush);
        failed = nothing == NULL;
        Py_XDECREF(nothing);
    }
    failed = raise_again(exc) || failed;
    Py_DECREF(exchange);
    Py_DECREF(wire);
    return failed ? -1 : 1;
}

PyObject *
answer_take(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    return count == 2 && names == NULL && is_exactly(st, THREAD_CALL, args[1]) && take(st, args[0], args[1]) == 1
               ? Py_NewRef(Py_None)
               : NULL;
}

PyObject *
thread_call_advance(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *answer = GET(THREAD_CALL, args[0], T_ANSWER);
    if (count != 1 || names != NULL || !is_exactly(st, ANSWER, answer)) {
        return NULL;
    }
    Py_INCREF(answer);
    int taken = take(st, answer, args[0]);
    PyObject *result = taken == 1 ? Py_NewRef(Py_None) : NULL;
    Py_DECREF(answer);
    return result;
}
