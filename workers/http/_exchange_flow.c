/* The way of a usual request: from its bytes, by its handler, to its end. See `_exchange.h`.
 *
 * What is usual: a head that came in one piece, with all of its body; a connection that is between two requests, and
 * whose task waits for the next one; a handler that raises nothing; a response that is complete when it returns, on a
 * connection that stays open. Where it begins to be another case the reference goes on, from that point.
 */

#include "_exchange.h"

/* A part of a connection, of exactly the class that is known; NULL: it is another one, or was deleted. Borrowed. */
#define PART(class, of, object, number) (part(st, class, GET(of, object, number)))

static inline PyObject *
part(state *st, int class, PyObject *object)
{
    return is_exactly(st, class, object) ? object : NULL;
}

/* Whether `setup_flow()` was called. */
int
is_ready(state *st)
{
    return st->new != NULL;
}

/* Numbers of attributes that are small, most of the time; -1: it is another one. */
static inline long
small(PyObject *number)
{
    if (number == NULL || !PyLong_CheckExact(number)) {
        return -1;
    }
    long value = PyLong_AsLong(number);
    if (value == -1 && PyErr_Occurred()) {
        PyErr_Clear();
    }
    return value;
}

/* Add to the number of requests that are being handled. -1: an exception. */
static int
add_active(state *st, PyObject *connections, long by)
{
    long active = is_exactly(st, CONNECTIONS, connections) ? small(GET(CONNECTIONS, connections, CONNECTIONS_ACTIVE)) : -1;
    PyObject *sum = NULL;
    if (active >= 0 && active < LONG_MAX) {
        sum = PyLong_FromLong(active + by);
        if (sum != NULL) {
            PUT(CONNECTIONS, connections, CONNECTIONS_ACTIVE, sum);
        }
        return sum != NULL ? 0 : -1;
    }
    PyObject *value = PyObject_GetAttr(connections, st->names.active), *number = PyLong_FromLong(by);
    sum = value != NULL && number != NULL ? PyNumber_Add(value, number) : NULL;
    int result = sum != NULL ? PyObject_SetAttr(connections, st->names.active, sum) : -1;
    Py_XDECREF(sum);
    Py_XDECREF(number);
    Py_XDECREF(value);
    return result;
}

/* Whether the app has forked this process; -1: an exception. */
static int
has_strayed(state *st)
{
    PyObject *strayed = PyDict_GetItemWithError(st->offspring, st->names.strayed);
    if (strayed == Py_False) {
        return 0;
    }
    return strayed != NULL ? PyObject_IsTrue(strayed) : PyErr_Occurred() ? -1 : 0;
}

/* Take the exception that has been raised, with its traceback. */
PyObject *
taken_exception(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL && value != NULL) {
        PyException_SetTraceback(value, traceback);
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

/* Raise an exception again, or, where another has been raised meanwhile, say that it came of this; takes over the
 * reference. 0: there is none. */
int
raise_again(PyObject *exc)
{
    if (exc != NULL && PyErr_Occurred()) {
        PyObject *later = taken_exception();
        if (later != NULL && later != exc) {
            PyException_SetContext(later, exc);
            exc = later;
        }
        else {
            Py_XDECREF(later);
        }
    }
    if (exc != NULL) {
        PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exc)), exc, PyException_GetTraceback(exc));
    }
    return exc != NULL;
}

/* The way in. */

/* Take a request whose body is not all there, or is to be decoded; results as of `take_head()`. */
static int
take_upload(state *st, PyObject *self, PyObject *parser, PyObject *message, PyObject *data)
{
    PyObject *head_size = GET(MESSAGE, message, MESSAGE_HEAD_SIZE);
    if (head_size == NULL) {
        return 0;
    }
    PUT(PARSER, parser, PARSER_CONSUMED, Py_NewRef(head_size));
    PyObject *begun = PyObject_CallMethodOneArg(parser, st->names._begin_body, message);
    PyObject *arguments[] = {self, message, data};
    PyObject *taken = begun != NULL ? PyObject_VectorcallMethod(st->names._take_request, arguments, 3, NULL) : NULL;
    Py_XDECREF(taken);
    Py_XDECREF(begun);
    return taken != NULL ? 1 : -1;
}

/* Take a request without a body, or with `size` bytes of it behind its head; results as of `take_head()`. */
static int
take_whole(state *st, PyObject *self, PyObject *parser, PyObject *message, PyObject *data, Py_ssize_t size)
{
    PyObject *connection = GET(INTAKE, self, INTAKE_CONNECTION), *edge = GET(INTAKE, self, INTAKE_EDGE);
    Py_ssize_t head_size = small(GET(MESSAGE, message, MESSAGE_HEAD_SIZE)), given = PyBytes_GET_SIZE(data);
    const char *body_start = PyBytes_AS_STRING(data) + head_size;
    PyObject *payload = NULL, *consumed = PyLong_FromSsize_t(head_size + size);
    if (consumed == NULL) {
        return -1;
    }
    Py_INCREF(connection);
    Py_INCREF(edge);
    int result = 1;
    if (size > 0) {
        PyObject *body = PyBytes_FromStringAndSize(body_start, size);
        PyObject *loop = body != NULL ? PyObject_GetAttr(connection, st->names.loop) : NULL;
        PyObject *made[] = {body, loop};
        payload = loop != NULL ? PyObject_Vectorcall(st->whole_payload, made, 2, NULL) : NULL;
        Py_XDECREF(loop);
        Py_XDECREF(body);
        result = payload != NULL ? 1 : -1;
    }
    if (result == 1) {
        PUT(PARSER, parser, PARSER_CONSUMED, Py_NewRef(consumed));
        if (size > 0) {
            PUT(PARSER, parser, PARSER_IN_BODY, Py_NewRef(Py_False));
            PUT(PARSER, parser, PARSER_BODY_RECEIVED, Py_XNewRef(GET(MESSAGE, message, MESSAGE_CONTENT_LENGTH)));
            PUT(PARSER, parser, PARSER_LEFT, Py_NewRef(st->numbers[0]));
            PUT(PARSER, parser, PARSER_CHUNKED, Py_NewRef(Py_None));
        }
        if (edge != Py_None) {
            PyObject *taken[] = {edge, connection, message};
            PyObject *nothing = PyObject_VectorcallMethod(st->names.take, taken, 3, NULL);
            result = nothing != NULL ? 1 : -1;
            Py_XDECREF(nothing);
        }
    }
    PyObject *times = PART(TIMES, INTAKE, self, INTAKE_TIMES);
    if (result == 1 && times != NULL) {
        PUT(TIMES, times, TIMES_HEAD, Py_NewRef(st->zero));
        PUT(INTAKE, self, INTAKE_MESSAGE, Py_NewRef(message));
        PUT(INTAKE, self, INTAKE_PHASE, Py_NewRef(st->phases[PHASE_OF_KEEP]));
        if (payload != NULL) {
            PUT(INTAKE, self, INTAKE_PAYLOAD, Py_NewRef(payload));
        }
        if (head_size + size < given) {
            PyObject *rest = PyBytes_FromStringAndSize(body_start + size, given - head_size - size);
            PyObject *taken = rest != NULL ? PyObject_CallMethodOneArg(self, st->names.take, rest) : NULL;
            result = taken != NULL ? 1 : -1;
            Py_XDECREF(taken);
            Py_XDECREF(rest);
        }
    }
    Py_XDECREF(payload);
    Py_DECREF(edge);
    Py_DECREF(connection);
    Py_DECREF(consumed);
    return result;
}

/* `Intake.take_head()`. 1: a request has come; 0: it is not usual, and nothing has been done; -1: an exception. */
static int
take_head(state *st, PyObject *self, PyObject *data)
{
    PyObject *parser = PART(PARSER, INTAKE, self, INTAKE_PARSER);
    if (!is_ready(st) || parser == NULL || PART(TIMES, INTAKE, self, INTAKE_TIMES) == NULL
        || GET(INTAKE, self, INTAKE_EDGE) == NULL || !is_connection(st, GET(INTAKE, self, INTAKE_CONNECTION))
        || !PyBytes_CheckExact(data) || GET(PARSER, parser, PARSER_PARTIAL) != Py_None) {
        return 0;
    }
    PyObject *parse = GET(PARSER, parser, PARSER_USUAL_HEAD);
    PyObject *arguments[] = {data, GET(PARSER, parser, PARSER_LIMIT_HEADERS), GET(PARSER, parser, PARSER_LIMIT_BODY),
                             GET(PARSER, parser, PARSER_SHORT)};
    if (parse == NULL || parse == Py_None || arguments[1] == NULL || arguments[2] == NULL || arguments[3] == NULL) {
        return 0;
    }
    Py_INCREF(parser);
    PyObject *message = PyObject_Vectorcall(parse, arguments, 4, NULL);
    int result = message == NULL ? -1 : 0; /* None: a head for the reference */
    if (is_exactly(st, MESSAGE, message)) {
        PyObject *length = GET(MESSAGE, message, MESSAGE_CONTENT_LENGTH);
        Py_ssize_t size = length == Py_None ? 0 : small(length);
        Py_ssize_t head_size = small(GET(MESSAGE, message, MESSAGE_HEAD_SIZE));
        int is_whole = GET(MESSAGE, message, MESSAGE_CHUNKED) == Py_False && size <= PyBytes_GET_SIZE(data) - head_size
                       && (size == 0 || GET(MESSAGE, message, MESSAGE_COMPRESSION) == Py_None);
        if (head_size > 0 && size >= 0) {
            result = is_whole ? take_whole(st, self, parser, message, data, size)
                              : take_upload(st, self, parser, message, data);
        }
    }
    Py_XDECREF(message);
    Py_DECREF(parser);
    return result;
}

PyObject *
intake_take_head(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count != 2 || names != NULL || !is_exactly(st, INTAKE, args[0])) {
        return NULL;
    }
    return take_head(st, args[0], args[1]) == 1 ? Py_NewRef(Py_True) : NULL;
}

PyObject *
edge_take(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (!is_ready(st) || count != 3 || names != NULL || !is_connection(st, args[1]) || !is_exactly(st, MESSAGE, args[2])) {
        return NULL;
    }
    PyObject *connection = args[1], *message = args[2], *ids = GET(EDGE, args[0], EDGE_IDS);
    PyObject *trusts = GET(CONNECTION, connection, CONNECTION_PEER_IS_TRUSTED);
    long noted = small(GET(MESSAGE, message, MESSAGE_NOTED));
    if (noted < 0 || noted & st->tells || GET(CONNECTION, connection, CONNECTION_SPEAKS_FOR_OTHERS) != Py_False
        || ids == NULL) {
        return NULL;
    }
    if (ids == Py_None) {
        Py_RETURN_NONE;
    }
    if (trusts != Py_True && trusts != Py_False) {
        return NULL;
    }
    Py_INCREF(ids);
    PyObject *take_usual = PyObject_GetAttr(ids, st->names.take_usual);
    PyObject *arguments[] = {message, trusts};
    PyObject *taken = take_usual != NULL ? PyObject_Vectorcall(take_usual, arguments, 2, NULL) : NULL;
    Py_XDECREF(take_usual);
    Py_DECREF(ids);
    int is_taken = taken != NULL ? PyObject_IsTrue(taken) : -1;
    Py_XDECREF(taken);
    return is_taken == 1 ? Py_NewRef(Py_None) : NULL; /* else the reference asks again, and gets the same answer */
}

/* The handler. */

/* What a handler has raised is taken from here on by the reference. */
static PyObject *
fail(state *st, PyObject *self, PyObject *exchange, PyObject *context)
{
    PyObject *exc = taken_exception();
    PyObject *arguments[] = {self, exchange, exc, context};
    PyObject *rest = exc != NULL ? PyObject_VectorcallMethod(st->names._failed, arguments, 4, NULL) : NULL;
    Py_XDECREF(exc);
    return rest;
}

/* `Handling._after_handler()` of a handler that has raised nothing. 1: the request is over; 0: it is not usual, and nothing
 * has been done but the flush; -1: an exception. */
static int
after_handler(state *st, PyObject *self, PyObject *exchange)
{
    PyObject *writer = PART(WIRE, HANDLING, self, HANDLING_WRITER);
    PyObject *intake = PART(INTAKE, HANDLING, self, HANDLING_INTAKE);
    PyObject *connection = GET(HANDLING, self, HANDLING_CONNECTION), *runner = GET(HANDLING, self, HANDLING_RUNNER);
    PyObject *reporting = GET(HANDLING, self, HANDLING_REPORTING), *keep_alive = NULL;
    PyObject *response = writer != NULL ? GET(WIRE, writer, W_RESPONSE) : NULL;
    if (!is_ready(st) || intake == NULL || runner == NULL || reporting == NULL || !is_connection(st, connection)
        || !is_one(st, HEAD, response) || GET(WIRE, writer, W_EXCHANGE) != exchange || has_strayed(st) != 0) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *waited = ATTRIBUTE(EXCHANGE, exchange, EXCHANGE_HAS_WAITED, has_waited);
    Py_XDECREF(waited);
    if (waited != Py_False) { /* perhaps the task is to be let go */
        return waited == NULL ? -1 : 0;
    }
    if (GET(WIRE, writer, W_DUE) != Py_False) {
        Py_INCREF(response);
        PyObject *flushed[] = {writer, Py_True};
        PyObject *nothing = PyObject_VectorcallMethod(st->names.flush, flushed, 1, st->is_last);
        Py_XDECREF(nothing);
        int is_same = GET(WIRE, writer, W_RESPONSE) == response && GET(WIRE, writer, W_EXCHANGE) == exchange;
        Py_DECREF(response);
        if (nothing == NULL || !is_same) {
            return nothing == NULL ? -1 : 0;
        }
    }
    if (GET(HEAD, response, H_ENDED) != Py_True || GET(HEAD, response, H_KEEPS) != Py_True
        || GET(INTAKE, intake, INTAKE_PHASE) != st->phases[PHASE_OF_KEEP]
        || GET(CONNECTION, connection, CONNECTION_CLIENT_FINISHED) != Py_False
        || GET(CONNECTION, connection, CONNECTION_PERSISTENT) != Py_True || GET(WIRE, writer, W_PAUSED) != Py_False) {
        return 0;
    }
    keep_alive = ATTRIBUTE(EXCHANGE, exchange, EXCHANGE_KEEP_ALIVE, keep_alive);
    Py_XDECREF(keep_alive);
    if (keep_alive != Py_True) {
        return keep_alive == NULL ? -1 : 0;
    }
    PyObject *reported[] = {reporting, exchange, response};
    Py_INCREF(response);
    PyObject *nothing = PyObject_VectorcallMethod(st->names.complete, reported, 3, NULL);
    Py_DECREF(response);
    PyObject *body = nothing != NULL ? ATTRIBUTE(EXCHANGE, exchange, EXCHANGE_BODY, body) : NULL;
    Py_XDECREF(nothing);
    if (body == NULL) {
        return -1;
    }
    PUT(WIRE, writer, W_RESPONSE, Py_NewRef(Py_None));
    PUT(WIRE, writer, W_EXCHANGE, Py_NewRef(Py_None));
    PUT(CONNECTION, connection, CONNECTION_STATE, Py_NewRef(st->idle));
    PUT(INTAKE, intake, INTAKE_PHASE, Py_NewRef(st->phases[PHASE_OF_HEAD]));
    if (body != st->empty_payload) {
        PUT(INTAKE, intake, INTAKE_PAYLOAD, Py_NewRef(st->empty_payload));
    }
    Py_DECREF(body);
    PyObject *tail = GET(INTAKE, intake, INTAKE_TAIL);
    if (tail == NULL || !PyBytes_CheckExact(tail) || PyBytes_GET_SIZE(tail) > 0) {
        PyObject *taken = PyObject_CallMethodNoArgs(intake, st->names.take_tail);
        int has_come = taken != NULL ? PyObject_IsTrue(taken) : -1;
        Py_XDECREF(taken);
        nothing = has_come > 0 ? PyObject_CallMethodNoArgs(runner, st->names.proceed) : NULL;
        Py_XDECREF(nothing);
        return has_come == 0 || nothing != NULL ? 1 : -1;
    }
    return 1;
}

PyObject *
handling_after_handler(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    return count == 3 && names == NULL && args[2] == Py_None && after_handler(st, args[0], args[1]) == 1
               ? Py_NewRef(Py_None)
               : NULL;
}

/* The same, and `Handling._begun()`. */
static PyObject *
end(state *st, PyObject *self, PyObject *exchange, PyObject *context)
{
    int is_over = after_handler(st, self, exchange);
    if (is_over != 0) {
        return is_over == 1 ? Py_NewRef(Py_None) : NULL;
    }
    PyObject *arguments[] = {self, exchange, Py_None};
    PyObject *steps = PyObject_VectorcallMethod(st->names._after_handler, arguments, 3, NULL), *rest = NULL;
    if (steps != NULL) {
        PyObject *begun[] = {self, exchange, steps, context};
        rest = PyObject_VectorcallMethod(st->names._begun, begun, 4, NULL);
        Py_DECREF(steps);
    }
    return rest;
}

/* `HttpConnection.end_deferred()` of what has raised nothing, and `Handling.end_deferred()`. */
PyObject *
connection_end_deferred(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *handling = PART(HANDLING, CONNECTION, args[0], CONNECTION_HANDLING);
    PyObject *writer = handling != NULL ? PART(WIRE, HANDLING, handling, HANDLING_WRITER) : NULL;
    PyObject *connections = writer != NULL ? GET(HANDLING, handling, HANDLING_CONNECTIONS) : NULL;
    if (!is_ready(st) || count != 3 || names != NULL || args[2] != Py_None || connections == NULL
        || GET(HANDLING, handling, HANDLING_RUNNER) == NULL || !is_exactly(st, EXCHANGE, args[1])
        || GET(WIRE, writer, W_EXCHANGE) != args[1]) {
        return NULL;
    }
    PyObject *deferred = Py_XNewRef(GET(EXCHANGE, args[1], EXCHANGE_DEFERRED));
    if (deferred == NULL || deferred == Py_None) {
        Py_XDECREF(deferred);
        return NULL;
    }
    PyObject *result = NULL, *runner = GET(HANDLING, handling, HANDLING_RUNNER);
    Py_INCREF(handling);
    PUT(EXCHANGE, args[1], EXCHANGE_DEFERRED, Py_NewRef(Py_None));
    if (add_active(st, connections, -1) == 0) {
        int is_over = after_handler(st, handling, args[1]);
        if (is_over == 1) {
            result = Py_NewRef(Py_None);
        }
        else if (is_over == 0) { /* as if it had not been tried */
            PUT(EXCHANGE, args[1], EXCHANGE_DEFERRED, Py_NewRef(deferred));
            add_active(st, connections, 1);
        }
        else { /* raised again where the task's own exceptions are */
            PyObject *exc = taken_exception(), *rest = exc != NULL ? PyObject_CallOneArg(st->raising, exc) : NULL;
            result = rest != NULL ? PyObject_CallMethodOneArg(runner, st->names.await_now, rest) : NULL;
            Py_XDECREF(rest);
            Py_XDECREF(exc);
        }
    }
    Py_DECREF(deferred);
    Py_DECREF(handling);
    return result;
}

/* `Handling._begin()`; NULL without an exception: it is not usual, and nothing has been done. */
static PyObject *
begun_exchange(state *st, PyObject *self, PyObject *connection, PyObject *intake, PyObject *writer)
{
    PyObject *reporting = PART(REPORTING, HANDLING, self, HANDLING_REPORTING);
    PyTypeObject *type = st->classes[EXCHANGE].type;
    if (type == NULL || reporting == NULL) {
        return NULL;
    }
    /* First what may have the collector called, and with it anything. */
    int is_timed = GET(REPORTING, reporting, REPORTING_WANTS_TIME) == Py_True;
    PyObject *exchange = type->tp_alloc(type, 0), *number = NULL;
    PyObject *began = exchange == NULL ? NULL : is_timed ? PyObject_CallNoArgs(st->monotonic) : Py_NewRef(st->zero);
    if (began == NULL) {
        goto unusual;
    }
    PyObject *message = GET(INTAKE, intake, INTAKE_MESSAGE), *payload = GET(INTAKE, intake, INTAKE_PAYLOAD);
    PyObject *was = GET(CONNECTION, connection, CONNECTION_STATE);
    long requests = small(GET(CONNECTION, connection, CONNECTION_REQUESTS));
    number = PyLong_FromLong(requests + 1);
    if (!is_exactly(st, MESSAGE, message) || payload == NULL || (was != st->idle && was != st->new) || requests < 0
        || requests >= LONG_MAX - 1 || number == NULL) {
        goto unusual;
    }
    PUT(EXCHANGE, exchange, EXCHANGE_REQUEST, Py_NewRef(message));
    PUT(EXCHANGE, exchange, EXCHANGE_BODY, Py_NewRef(payload));
    PUT(EXCHANGE, exchange, EXCHANGE_WIRE, Py_NewRef(writer));
    PUT(EXCHANGE, exchange, EXCHANGE_CARRIER, Py_NewRef(connection));
    PUT(EXCHANGE, exchange, EXCHANGE_OBSERVER, Py_NewRef(st->unobserved));
    PUT(EXCHANGE, exchange, EXCHANGE_KEEP_ALIVE, Py_NewRef(Py_None));
    PUT(EXCHANGE, exchange, EXCHANGE_BEGAN, began);
    PUT(EXCHANGE, exchange, EXCHANGE_DEFERRED, Py_NewRef(Py_None));
    for (int i = EXCHANGE_IS_LOGGED; i <= EXCHANGE_NEEDS_NO_ANSWER; i++) {
        PUT(EXCHANGE, exchange, i, Py_NewRef(Py_False));
    }
    PUT(CONNECTION, connection, CONNECTION_STATE, Py_NewRef(st->active));
    PUT(INTAKE, intake, INTAKE_MESSAGE, Py_NewRef(Py_None));
    PUT(WIRE, writer, W_EXCHANGE, Py_NewRef(exchange));
    if (small(GET(HANDLING, self, HANDLING_LAST_REQUEST)) == requests + 1) {
        PUT(CONNECTION, connection, CONNECTION_PERSISTENT, Py_NewRef(Py_False));
    }
    PUT(CONNECTION, connection, CONNECTION_REQUESTS, number);
    return exchange;
unusual:
    Py_XDECREF(number);
    Py_XDECREF(began);
    Py_XDECREF(exchange);
    return NULL;
}

/* `Handling._serve()`. */
static PyObject *
serve(state *st, PyObject *self, PyObject *exchange, PyObject *connection, PyObject *payload)
{
    int is_checked = payload != st->empty_payload || GET(HANDLING, self, HANDLING_HAS_GUARD) != Py_False;
    if (!is_checked) {
        PyObject *allowed = is_one(st, HOST, connection) ? Py_XNewRef(GET(HOST, connection, HOST_ALLOWED_METHODS)) : NULL;
        allowed = allowed != NULL ? allowed : PyObject_GetAttr(connection, st->names.allowed_methods);
        is_checked = allowed == NULL ? -1 : PyObject_IsTrue(allowed);
        Py_XDECREF(allowed);
    }
    if (is_checked < 0) {
        return NULL;
    }
    if (is_checked) {
        return PyObject_CallMethodOneArg(self, st->names._serve, exchange);
    }
    PyObject *service = GET(CONNECTION, connection, CONNECTION_SERVICE);
    service = Py_NewRef(service == NULL || service == Py_None ? connection : service);
    PyObject *handling = PyObject_CallMethodOneArg(service, st->names.serve, exchange);
    Py_DECREF(service);
    return handling;
}

/* `Handling.process_request()`; NULL without an exception: it is not usual, and nothing has been done. */
static PyObject *
process(state *st, PyObject *self, PyObject *context)
{
    PyObject *connection = GET(HANDLING, self, HANDLING_CONNECTION);
    PyObject *intake = PART(INTAKE, HANDLING, self, HANDLING_INTAKE);
    PyObject *writer = PART(WIRE, HANDLING, self, HANDLING_WRITER);
    if (!is_ready(st) || !is_connection(st, connection) || intake == NULL || writer == NULL
        || GET(HANDLING, self, HANDLING_CONNECTIONS) == NULL || GET(HANDLING, self, HANDLING_RUNNER) == NULL) {
        return NULL;
    }
    PyObject *payload = Py_XNewRef(GET(INTAKE, intake, INTAKE_PAYLOAD));
    PyObject *exchange = begun_exchange(st, self, connection, intake, writer);
    if (exchange == NULL) {
        Py_XDECREF(payload);
        return NULL;
    }
    PyObject *handling = serve(st, self, exchange, connection, payload), *waiting = NULL, *rest = NULL;
    Py_DECREF(payload);
    PySendResult sent = handling == NULL ? PYGEN_ERROR : PYGEN_RETURN;
    if (handling != NULL && handling != st->done) {
        if (is_one(st, DEFERRED, handling)) {
            PUT(EXCHANGE, exchange, EXCHANGE_DEFERRED, handling);
            int failed = add_active(st, GET(HANDLING, self, HANDLING_CONNECTIONS), 1) < 0;
            Py_DECREF(exchange);
            return failed ? NULL : Py_NewRef(Py_None);
        }
        if (!PyCoro_CheckExact(handling)) {
            Py_SETREF(handling, PyObject_CallOneArg(st->steps_of, handling));
        }
        sent = handling == NULL ? PYGEN_ERROR : PyIter_Send(handling, Py_None, &waiting);
    }
    if (sent == PYGEN_NEXT) {
        PyObject *steps = PyCoro_CheckExact(handling) ? PyObject_CallOneArg(st->steps_of, handling) : Py_NewRef(handling);
        PyObject *arguments[] = {self, exchange, steps, waiting, context};
        rest = steps != NULL ? PyObject_VectorcallMethod(st->names._rest_of, arguments, 5, NULL) : NULL;
        Py_XDECREF(steps);
    }
    else if (sent == PYGEN_ERROR) {
        rest = fail(st, self, exchange, context);
    }
    else {
        rest = end(st, self, exchange, context);
    }
    Py_XDECREF(waiting);
    Py_XDECREF(handling);
    Py_DECREF(exchange);
    return rest;
}

PyObject *
handling_process_request(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    return count == 2 && names == NULL ? process(st, args[0], args[1]) : NULL;
}

/* The runner. */

/* `Runner.go_on()`. 1: done; 0: it is not usual, and nothing has been done; -1: an exception. */
static int
go_on(state *st, PyObject *self)
{
    PyObject *writer = PART(WIRE, RUNNER, self, RUNNER_WRITER), *work = PART(HANDLING, RUNNER, self, RUNNER_WORK);
    PyObject *base = GET(RUNNER, self, RUNNER_CONTEXT);
    if (!is_ready(st) || writer == NULL || work == NULL || base == NULL || !PyContext_CheckExact(base)) {
        return 0;
    }
    Py_INCREF(writer);
    Py_INCREF(work);
    PyObject *context = PyContext_Copy(base), *rest = NULL;
    int failed = context == NULL || PyContext_Enter(context) < 0;
    if (!failed) {
        PUT(WIRE, writer, W_CORKED, Py_NewRef(Py_True));
        rest = process(st, work, context);
        if (rest == NULL && !PyErr_Occurred()) {
            rest = PyObject_CallMethodOneArg(work, st->names.process_request, context);
        }
        PyObject *exc = rest == NULL ? taken_exception() : NULL;
        failed = PyContext_Exit(context) < 0;
        PUT(WIRE, writer, W_CORKED, Py_NewRef(Py_False));
        if (!failed && GET(WIRE, writer, W_DUE) != Py_False) {
            PyObject *nothing = PyObject_CallMethodNoArgs(writer, st->names.flush);
            failed = nothing == NULL;
            Py_XDECREF(nothing);
        }
        failed = raise_again(exc) || failed;
    }
    if (!failed && rest != Py_None) {
        int strayed = has_strayed(st);
        PyObject *nothing = strayed > 0 ? PyObject_CallOneArg(PyDict_GetItem(st->offspring, st->names.end), Py_None) : NULL;
        Py_XDECREF(nothing);
        PUT(RUNNER, self, RUNNER_REST, Py_NewRef(rest));
        nothing = PyErr_Occurred() ? NULL : PyObject_CallMethodNoArgs(work, st->names.handler_waits);
        failed = nothing == NULL;
        Py_XDECREF(nothing);
    }
    Py_XDECREF(rest);
    Py_XDECREF(context);
    Py_DECREF(work);
    Py_DECREF(writer);
    return failed ? -1 : 1;
}

PyObject *
runner_go_on(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    return count == 1 && names == NULL && go_on(st, args[0]) == 1 ? Py_NewRef(Py_None) : NULL;
}

/* `Runner.proceed()` in the name of the task; results as there. */
static int
proceed_as(state *st, PyObject *self, PyObject *task, PyObject *wakeup, PyObject *loop, PyObject *intake)
{
    PyObject *entered[] = {loop, task};
    PyObject *nothing = PyObject_Vectorcall(st->enter_task, entered, 2, NULL);
    if (nothing == NULL) { /* called from within another task */
        return PyErr_ExceptionMatches(PyExc_RuntimeError) ? (PyErr_Clear(), 0) : -1;
    }
    Py_DECREF(nothing);
    PUT(WAKEUP, wakeup, WAKEUP_HELD, Py_NewRef(Py_True));
    int gone_on = go_on(st, self);
    if (gone_on == 0) {
        nothing = PyObject_CallMethodNoArgs(self, st->names.go_on);
        gone_on = nothing != NULL ? 1 : -1;
        Py_XDECREF(nothing);
    }
    int failed = 0;
    if (gone_on < 0) { /* raised again where the task's own exceptions are */
        PyObject *exc = taken_exception();
        PyObject *rest = exc != NULL ? PyObject_CallOneArg(st->raising, exc) : NULL;
        Py_XDECREF(exc);
        failed = rest == NULL;
        if (rest != NULL) {
            PUT(RUNNER, self, RUNNER_REST, rest);
        }
    }
    PyObject *exc = failed ? taken_exception() : NULL;
    failed = 0;
    PUT(WAKEUP, wakeup, WAKEUP_HELD, Py_NewRef(Py_False));
    PyObject *left[] = {loop, task};
    nothing = PyObject_Vectorcall(st->leave_task, left, 2, NULL);
    failed = raise_again(exc) || nothing == NULL;
    Py_XDECREF(nothing);
    PyObject *phase = GET(INTAKE, intake, INTAKE_PHASE);
    if (!failed
        && (GET(RUNNER, self, RUNNER_REST) != Py_None || phase == st->phases[PHASE_OF_DISCARD]
            || phase == st->phases[PHASE_OF_FOREIGN])) {
        nothing = PyObject_CallMethodNoArgs(wakeup, st->names.wake);
        failed = nothing == NULL;
        Py_XDECREF(nothing);
    }
    return failed ? -1 : 1;
}

/* `Runner.proceed()`. 1: done; 0: it is not usual, and nothing has been done; -1: an exception. */
static int
proceed(state *st, PyObject *self)
{
    PyObject *task = GET(RUNNER, self, RUNNER_TASK), *wakeup = PART(WAKEUP, RUNNER, self, RUNNER_WAKEUP);
    PyObject *loop = GET(RUNNER, self, RUNNER_LOOP), *intake = PART(INTAKE, RUNNER, self, RUNNER_INTAKE);
    if (!is_ready(st) || task == NULL || task == Py_None || wakeup == NULL || loop == NULL || intake == NULL
        || GET(WAKEUP, wakeup, WAKEUP_CALLBACK) == Py_None || GET(WAKEUP, wakeup, WAKEUP_CALLBACK) == NULL
        || GET(WAKEUP, wakeup, WAKEUP_HELD) != Py_False || PART(WIRE, RUNNER, self, RUNNER_WRITER) == NULL
        || PART(HANDLING, RUNNER, self, RUNNER_WORK) == NULL) {
        return 0;
    }
    Py_INCREF(task);
    Py_INCREF(wakeup);
    Py_INCREF(loop);
    Py_INCREF(intake);
    int result = proceed_as(st, self, task, wakeup, loop, intake);
    Py_DECREF(intake);
    Py_DECREF(loop);
    Py_DECREF(wakeup);
    Py_DECREF(task);
    return result;
}

PyObject *
runner_proceed(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    return count == 1 && names == NULL && proceed(st, args[0]) == 1 ? Py_NewRef(Py_None) : NULL;
}

/* The report. */

enum { NO_LOG, LINE, TIMED_LINE }; /* of reporting.py */

/* Count a request that is over. -1: an exception. */
static int
count_request(state *st, PyObject *counter, PyObject *exchange, PyObject *status)
{
    PyObject *request = ATTRIBUTE(EXCHANGE, exchange, EXCHANGE_REQUEST, request), *began = NULL, *now = NULL, *taken = NULL;
    PyObject *result = NULL, *method = NULL;
    if (request != NULL && (began = ATTRIBUTE(EXCHANGE, exchange, EXCHANGE_BEGAN, began)) != NULL
        && (now = PyObject_CallNoArgs(st->monotonic)) != NULL && (taken = PyNumber_Subtract(now, began)) != NULL
        && (method = ATTRIBUTE(MESSAGE, request, MESSAGE_METHOD, method)) != NULL) {
        PyObject *arguments[] = {method, status, taken};
        result = PyObject_Vectorcall(counter, arguments, 3, NULL);
    }
    Py_XDECREF(method);
    Py_XDECREF(taken);
    Py_XDECREF(now);
    Py_XDECREF(began);
    Py_XDECREF(request);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

PyObject *
reporting_complete(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (!is_ready(st) || count != 3 || names != NULL || !is_exactly(st, EXCHANGE, args[1]) || !is_one(st, HEAD, args[2])) {
        return NULL;
    }
    PyObject *self = args[0], *status = GET(HEAD, args[2], H_SENT_STATUS), *counter = GET(REPORTING, self, REPORTING_COUNT);
    PyObject *way = GET(REPORTING, self, REPORTING_LOGGING), *is_logged = Py_XNewRef(GET(EXCHANGE, args[1], EXCHANGE_IS_LOGGED));
    long code = small(status), logging = small(way);
    Py_XDECREF(is_logged);
    if (code < 0 || code >= 300 || counter == NULL || is_logged != Py_False || logging < 0 || logging > TIMED_LINE) {
        return NULL;
    }
    Py_INCREF(counter);
    Py_INCREF(status);
    int failed = counter != Py_None && count_request(st, counter, args[1], status) < 0;
    Py_DECREF(status);
    Py_DECREF(counter);
    if (failed) {
        return NULL;
    }
    return logging == NO_LOG ? Py_NewRef(Py_None) : PyObject_VectorcallMethod(st->names._write_line, args, 3, NULL);
}

/* The transport's call. */

PyObject *
connection_data_received(state *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *intake = PART(INTAKE, CONNECTION, args[0], CONNECTION_INTAKE);
    PyObject *runner = PART(RUNNER, CONNECTION, args[0], CONNECTION_RUNNER);
    if (!is_ready(st) || count != 2 || names != NULL || intake == NULL || runner == NULL
        || GET(INTAKE, intake, INTAKE_PHASE) != st->phases[PHASE_OF_HEAD]) {
        return NULL;
    }
    Py_INCREF(intake);
    Py_INCREF(runner);
    PyObject *result = NULL;
    int taken = take_head(st, intake, args[1]);
    if (taken == 0) { /* the reference at once: the method would look at the head once more */
        PyObject *arguments[] = {intake, args[1]};
        PyObject *answer = PyObject_Vectorcall(st->pure_take_head, arguments, 2, NULL);
        taken = answer == NULL ? -1 : PyObject_IsTrue(answer);
        Py_XDECREF(answer);
        if (taken == 0) {
            result = Py_NewRef(Py_None);
        }
    }
    if (taken == 1) {
        int proceeded = proceed(st, runner);
        if (proceeded == 0) {
            result = PyObject_CallMethodNoArgs(runner, st->names.proceed);
        }
        else if (proceeded == 1) {
            result = Py_NewRef(Py_None);
        }
    }
    Py_DECREF(runner);
    Py_DECREF(intake);
    return result;
}
