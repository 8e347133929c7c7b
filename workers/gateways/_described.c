/* A request as apps are told of it, in C: what `asgi/scope.py` and `wsgi/environ.py` do for the usual ones.
 *
 * None is returned for the others, and they do it: what a proxy says, HTTP/1.0, an escape in the path, a target that is
 * no path. `tests/workers/gateways/test_described.py` compares the two forms.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#include "../http/_message.h"

/* The keys that are set here. */
#define KEYS(X)                                                                                                  \
    X(asgi) X(client) X(extensions) X(headers) X(method) X(path) X(query_string) X(raw_path) X(request_id)       \
    X(state)                                                                                                     \
    X(HTTP_COOKIE) X(PATH_INFO) X(QUERY_STRING) X(RAW_URI) X(REMOTE_ADDR) X(REMOTE_PORT) X(REQUEST_METHOD)       \
    X(REQUEST_URI)

typedef struct {
    message_class class;
    PyObject *version;     /* HttpVersion11 */
    PyObject *id_variable; /* "preforkd.request_id" */
#define DECLARE(key) PyObject *key;
    KEYS(DECLARE)
} state;

static PyObject *
text_of(const char *s, Py_ssize_t size)
{
    PyObject *text = PyUnicode_New(size, 127);
    if (text != NULL) {
        memcpy(PyUnicode_1BYTE_DATA(text), s, (size_t)size);
    }
    return text;
}

/* Set a value, and let go of it; NULL: an exception. */
static int
put(PyObject *dict, PyObject *key, PyObject *value)
{
    int failed = value == NULL || PyDict_SetItem(dict, key, value) < 0;
    Py_XDECREF(value);
    return failed ? -1 : 0;
}

/* The target of a request, where it lies. */
typedef struct {
    const char *path;
    Py_ssize_t path_size;
    const char *query;
    Py_ssize_t query_size;
} target;

/* Look at a request; 1: it is a usual one; 0: it is not; -1: an exception, for it is none at all. */
static int
look_at(state *st, PyObject *message, target *to)
{
    message_class *class = &st->class;
    if (!is_message(class, message)) {
        PyErr_SetString(PyExc_TypeError, "that is no RequestMessage, or setup() was not called");
        return -1;
    }
    PyObject *path = SLOT(class, message, PATH);
    if (SLOT(class, message, VERSION) != st->version || SLOT(class, message, FORWARDED) != Py_None
        || !PyUnicode_CheckExact(path) || !PyUnicode_IS_COMPACT_ASCII(path)
        || !PyList_CheckExact(SLOT(class, message, FIELDS))
        || !PyUnicode_CheckExact(SLOT(class, message, REQUEST_ID))) {
        return 0;
    }
    Py_ssize_t size = PyUnicode_GET_LENGTH(path);
    to->path = (const char *)PyUnicode_1BYTE_DATA(path);
    const char *mark = memchr(to->path, '?', (size_t)size);
    to->path_size = mark != NULL ? mark - to->path : size;
    to->query = mark != NULL ? mark + 1 : to->path + size;
    to->query_size = to->path + size - to->query;
    return size > 0 && to->path[0] == '/' && memchr(to->path, '%', (size_t)to->path_size) == NULL;
}

/* The state of a request: a copy of the app's, with the id. */
static PyObject *
state_of(state *st, PyObject *kept, PyObject *message)
{
    PyObject *copy = PyDict_Copy(kept);
    PyObject *id = SLOT(&st->class, message, REQUEST_ID);
    if (copy != NULL && PyUnicode_GET_LENGTH(id) > 0 && PyDict_SetItem(copy, st->request_id, id) < 0) {
        Py_CLEAR(copy);
    }
    return copy;
}

PyDoc_STRVAR(scope_doc,
             "scope(template, state, extensions, message, client)\n--\n\n"
             "Return the scope of a usual request; arguments as in Templates.http(). None: it is an unusual one.");

static PyObject *
scope(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    state *st = PyModule_GetState(module);
    message_class *class = &st->class;
    if (count != 5 || !PyDict_CheckExact(args[0]) || !PyDict_CheckExact(args[1]) || !PyDict_CheckExact(args[2])) {
        PyErr_SetString(PyExc_TypeError, "scope() takes three dicts, a request and an address");
        return NULL;
    }
    PyObject *versions = PyDict_GetItemWithError(args[0], st->asgi), *message = args[3];
    if (versions == NULL || !PyDict_CheckExact(versions)) {
        PyErr_SetString(PyExc_TypeError, "the template has no versions of ASGI");
        return NULL;
    }
    target at;
    int is_usual = look_at(st, message, &at);
    if (is_usual < 1) {
        return is_usual == 0 ? Py_NewRef(Py_None) : NULL;
    }
    PyObject *fields = SLOT(class, message, FIELDS);
    PyObject *made = PyDict_Copy(args[0]);
    if (made == NULL
        || PyDict_SetItem(made, st->method, SLOT(class, message, METHOD)) < 0
        || PyDict_SetItem(made, st->client, args[4]) < 0
        || put(made, st->asgi, PyDict_Copy(versions)) < 0
        || put(made, st->path, text_of(at.path, at.path_size)) < 0
        || put(made, st->raw_path, PyBytes_FromStringAndSize(at.path, at.path_size)) < 0
        || put(made, st->query_string, PyBytes_FromStringAndSize(at.query, at.query_size)) < 0
        || put(made, st->headers, PyList_GetSlice(fields, 0, PyList_GET_SIZE(fields))) < 0
        || put(made, st->state, state_of(st, args[1], message)) < 0
        || put(made, st->extensions, PyDict_Copy(args[2])) < 0) {
        Py_CLEAR(made);
    }
    return made;
}

/* The variable of a name (RFC 3875 section 4.1.18); NULL without an exception: the app must not see it. */
static PyObject *
variable_of(PyObject *variables, PyObject *name)
{
    PyObject *known = PyDict_GetItemWithError(variables, name);
    if (known != NULL || PyErr_Occurred()) {
        return Py_XNewRef(known);
    }
    const char *s = PyBytes_AS_STRING(name);
    Py_ssize_t size = PyBytes_GET_SIZE(name);
    if (memchr(s, '_', (size_t)size) != NULL || (size == 5 && memcmp(s, "proxy", 5) == 0)) {
        return NULL;
    }
    PyObject *variable = PyUnicode_New(5 + size, 127);
    if (variable != NULL) {
        char *text = (char *)PyUnicode_1BYTE_DATA(variable);
        memcpy(text, "HTTP_", 5);
        for (Py_ssize_t i = 0; i < size; i++) {
            text[5 + i] = (char)(s[i] == '-' ? '_' : (s[i] >= 'a' && s[i] <= 'z' ? s[i] - 32 : s[i] & 127));
        }
    }
    return variable;
}

/* Add a field; one that is there already is joined as RFC 9110 section 5.3 and RFC 6265 section 5.4 say. */
static int
add_field(state *st, PyObject *environ, PyObject *variables, PyObject *name, PyObject *value)
{
    PyObject *variable = variable_of(variables, name);
    if (variable == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *text = PyUnicode_DecodeLatin1(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), NULL);
    Py_ssize_t before = PyDict_GET_SIZE(environ);
    PyObject *there = text != NULL ? PyDict_SetDefault(environ, variable, text) : NULL;
    int failed = there == NULL;
    if (there != NULL && PyDict_GET_SIZE(environ) == before) {
        int is_cookie = PyUnicode_Compare(variable, st->HTTP_COOKIE) == 0;
        failed = put(environ, variable, PyUnicode_FromFormat(is_cookie ? "%U; %U" : "%U,%U", there, text)) < 0;
    }
    Py_XDECREF(text);
    Py_DECREF(variable);
    return failed ? -1 : 0;
}

static int
add_fields(state *st, PyObject *environ, PyObject *variables, PyObject *fields)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(fields); i++) {
        PyObject *pair = PyList_GET_ITEM(fields, i);
        if (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2 || !PyBytes_CheckExact(PyTuple_GET_ITEM(pair, 0))
            || !PyBytes_CheckExact(PyTuple_GET_ITEM(pair, 1))) {
            PyErr_SetString(PyExc_TypeError, "the fields of a request are pairs of bytes");
            return -1;
        }
        if (add_field(st, environ, variables, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1)) < 0) {
            return -1;
        }
    }
    return 0;
}

/* A port as text; NULL: an exception. */
static PyObject *
port_text(PyObject *port)
{
    char digits[5];
    int at = sizeof digits;
    long number = PyLong_AsLong(port);
    if (number < 0 || number > 65535) {
        return PyErr_Occurred() ? NULL : PyObject_Str(port);
    }
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    return text_of(digits + at, (Py_ssize_t)sizeof digits - at);
}

/* Add the client's address; None: it has none. */
static int
add_client(state *st, PyObject *environ, PyObject *client)
{
    if (client == Py_None) {
        return 0;
    }
    if (!PyTuple_CheckExact(client) || PyTuple_GET_SIZE(client) != 2) {
        PyErr_SetString(PyExc_TypeError, "a client is a host and a port");
        return -1;
    }
    if (PyDict_SetItem(environ, st->REMOTE_ADDR, PyTuple_GET_ITEM(client, 0)) < 0) {
        return -1;
    }
    return put(environ, st->REMOTE_PORT, port_text(PyTuple_GET_ITEM(client, 1)));
}

PyDoc_STRVAR(environ_doc,
             "environ(base, variables, message, client)\n--\n\n"
             "Return the environ of a usual request; None: it is an unusual one.\n\n"
             "Args:\n"
             "    base, message, client: as in EnvironSource.\n"
             "    variables: from names of fields to variables; those that are not there are made.\n");

static PyObject *
environ_of(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    state *st = PyModule_GetState(module);
    message_class *class = &st->class;
    if (count != 4 || !PyDict_CheckExact(args[0]) || !PyDict_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "environ() takes two dicts, a request and an address");
        return NULL;
    }
    PyObject *message = args[2];
    target at;
    int is_usual = look_at(st, message, &at);
    if (is_usual < 1) {
        return is_usual == 0 ? Py_NewRef(Py_None) : NULL;
    }
    PyObject *made = PyDict_Copy(args[0]);
    PyObject *id = SLOT(class, message, REQUEST_ID);
    if (made == NULL
        || add_client(st, made, args[3]) < 0
        || PyDict_SetItem(made, st->REQUEST_METHOD, SLOT(class, message, METHOD)) < 0
        || PyDict_SetItem(made, st->REQUEST_URI, SLOT(class, message, PATH)) < 0
        || PyDict_SetItem(made, st->RAW_URI, SLOT(class, message, PATH)) < 0
        || put(made, st->PATH_INFO, text_of(at.path, at.path_size)) < 0
        || put(made, st->QUERY_STRING, text_of(at.query, at.query_size)) < 0
        || (PyUnicode_GET_LENGTH(id) > 0 && PyDict_SetItem(made, st->id_variable, id) < 0)
        || add_fields(st, made, args[1], SLOT(class, message, FIELDS)) < 0) {
        Py_CLEAR(made);
    }
    return made;
}

PyDoc_STRVAR(setup_doc,
             "setup(request_class, version)\n--\n\n"
             "Take RequestMessage and HttpVersion11; once, before anything else.");

static PyObject *
setup(PyObject *module, PyObject *args)
{
    state *st = PyModule_GetState(module);
    PyObject *request_class, *version;
    if (!PyArg_ParseTuple(args, "O!O", &PyType_Type, &request_class, &version)) {
        return NULL;
    }
    if (st->version != NULL) {
        PyErr_SetString(PyExc_ValueError, "setup() was called before");
        return NULL;
    }
#define INTERN(key) || (st->key = PyUnicode_InternFromString(#key)) == NULL
    if ((st->id_variable = PyUnicode_InternFromString("preforkd.request_id")) == NULL KEYS(INTERN)
        || find_slots(&st->class, request_class) < 0) {
        return NULL;
    }
    st->version = Py_NewRef(version);
    Py_RETURN_NONE;
}

static int
visit_state(PyObject *module, visitproc visit, void *arg)
{
    state *st = PyModule_GetState(module);
    Py_VISIT(st->class.type);
    Py_VISIT(st->version);
    return 0;
}

static int
clear_state(PyObject *module)
{
    state *st = PyModule_GetState(module);
    Py_CLEAR(st->class.type);
    Py_CLEAR(st->version);
    Py_CLEAR(st->id_variable);
#define CLEAR(key) Py_CLEAR(st->key);
    KEYS(CLEAR)
    return 0;
}

static void
free_state(void *module)
{
    clear_state(module);
}

static PyMethodDef functions[] = {
    {"setup", setup, METH_VARARGS, setup_doc},
    {"scope", (PyCFunction)(void (*)(void))scope, METH_FASTCALL, scope_doc},
    {"environ", (PyCFunction)(void (*)(void))environ_of, METH_FASTCALL, environ_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "preforkd.workers.gateways._described",
    .m_doc = "A request as apps are told of it, in C; see asgi/scope.py and wsgi/environ.py.",
    .m_size = sizeof(state),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = visit_state,
    .m_clear = clear_state,
    .m_free = free_state,
};

PyMODINIT_FUNC
PyInit__described(void)
{
    return PyModuleDef_Init(&definition);
}
