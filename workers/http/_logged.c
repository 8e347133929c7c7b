/* The parts of a line of the access log that a request has, in C: what `access_log_format.py` does for the usual ones.
 *
 * Usual is what needs no escape, and no user. All else stays there: `tests/workers/http/test_access_log_format.py`
 * compares the two.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <string.h>

#include "_message.h"

enum { PARTS_MAX = 16 };
enum kind { LINE, FIELD, USER };

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    message_class class;
    PyObject *version; /* HttpVersion11 */
    PyObject *pure;    /* the reference */
    PyObject *dash;
    Py_ssize_t count;
    enum kind kinds[PARTS_MAX];
    PyObject *names[PARTS_MAX]; /* bytes: of the field, in lower case; NULL for LINE */
} parts;

/* Whether text needs no escape: printable, of ASCII, without quotes and backslashes. */
static int
is_plain(const unsigned char *s, Py_ssize_t size)
{
    for (Py_ssize_t i = 0; i < size; i++) {
        if (s[i] < ' ' || s[i] > '~' || s[i] == '"' || s[i] == '\\') {
            return 0;
        }
    }
    return 1;
}

static int
is_plain_text(PyObject *text)
{
    return text != NULL && PyUnicode_CheckExact(text) && PyUnicode_IS_COMPACT_ASCII(text)
           && is_plain(PyUnicode_1BYTE_DATA(text), PyUnicode_GET_LENGTH(text));
}

/* "GET / HTTP/1.1"; NULL without an exception: it is not usual. */
static PyObject *
line_of(parts *self, PyObject *message)
{
    PyObject *method = SLOT(&self->class, message, METHOD), *path = SLOT(&self->class, message, PATH);
    if (SLOT(&self->class, message, VERSION) != self->version || !is_plain_text(method) || !is_plain_text(path)) {
        return NULL;
    }
    static const char end[] = " HTTP/1.1";
    const Py_ssize_t first = PyUnicode_GET_LENGTH(method), second = PyUnicode_GET_LENGTH(path);
    PyObject *line = PyUnicode_New(first + 1 + second + (Py_ssize_t)sizeof end - 1, 127);
    if (line != NULL) {
        Py_UCS1 *to = PyUnicode_1BYTE_DATA(line);
        memcpy(to, PyUnicode_1BYTE_DATA(method), (size_t)first);
        to[first] = ' ';
        memcpy(to + first + 1, PyUnicode_1BYTE_DATA(path), (size_t)second);
        memcpy(to + first + 1 + second, end, sizeof end - 1);
    }
    return line;
}

/* The value of a field; NULL without an exception: it is not usual. */
static PyObject *
value_of(parts *self, PyObject *value)
{
    const unsigned char *s = (const unsigned char *)PyBytes_AS_STRING(value);
    Py_ssize_t size = PyBytes_GET_SIZE(value);
    while (size > 0 && (s[0] == ' ' || s[0] == '\t')) {
        s++;
        size--;
    }
    while (size > 0 && (s[size - 1] == ' ' || s[size - 1] == '\t')) {
        size--;
    }
    if (size == 0) {
        return Py_NewRef(self->dash);
    }
    if (!is_plain(s, size)) {
        return NULL;
    }
    PyObject *text = PyUnicode_New(size, 127);
    if (text != NULL) {
        memcpy(PyUnicode_1BYTE_DATA(text), s, (size_t)size);
    }
    return text;
}

static int
is_same(PyObject *one, PyObject *other)
{
    return one == other
           || (PyBytes_GET_SIZE(one) == PyBytes_GET_SIZE(other)
               && memcmp(PyBytes_AS_STRING(one), PyBytes_AS_STRING(other), (size_t)PyBytes_GET_SIZE(one)) == 0);
}

/* The first value of each field that is wanted; borrowed. 0: the fields are not as they should be. */
static int
find(parts *self, PyObject *fields, PyObject **values)
{
    if (!PyList_CheckExact(fields)) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(fields); i++) {
        PyObject *pair = PyList_GET_ITEM(fields, i);
        if (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2 || !PyBytes_CheckExact(PyTuple_GET_ITEM(pair, 0))
            || !PyBytes_CheckExact(PyTuple_GET_ITEM(pair, 1))) {
            return 0;
        }
        for (Py_ssize_t part = 0; part < self->count; part++) {
            if (self->names[part] != NULL && values[part] == NULL
                && is_same(PyTuple_GET_ITEM(pair, 0), self->names[part])) {
                values[part] = PyTuple_GET_ITEM(pair, 1);
            }
        }
    }
    return 1;
}

static PyObject *
call(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *names)
{
    parts *self = (parts *)callable;
    PyObject *values[PARTS_MAX] = {NULL};
    if (PyVectorcall_NARGS(nargsf) != 1 || (names != NULL && PyTuple_GET_SIZE(names) != 0)) {
        PyErr_SetString(PyExc_TypeError, "the parts are those of a request");
        return NULL;
    }
    if (!is_message(&self->class, args[0]) || !find(self, SLOT(&self->class, args[0], FIELDS), values)) {
        return PyObject_CallOneArg(self->pure, args[0]);
    }
    PyObject *result = PyTuple_New(self->count);
    for (Py_ssize_t i = 0; result != NULL && i < self->count; i++) {
        PyObject *part = self->kinds[i] == LINE   ? line_of(self, args[0])
                         : values[i] == NULL      ? Py_NewRef(self->dash)
                         : self->kinds[i] == USER ? NULL
                                                  : value_of(self, values[i]);
        if (part == NULL) {
            Py_CLEAR(result);
        }
        else {
            PyTuple_SET_ITEM(result, i, part);
        }
    }
    return result != NULL || PyErr_Occurred() ? result : PyObject_CallOneArg(self->pure, args[0]);
}

static PyObject *
make(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *arguments[] = {"request_class", "version", "wanted", "pure", NULL};
    PyObject *request_class, *version, *wanted, *pure;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!OO!O", arguments, &PyType_Type, &request_class, &version,
                                     &PyTuple_Type, &wanted, &pure)) {
        return NULL;
    }
    if (PyTuple_GET_SIZE(wanted) > PARTS_MAX) {
        PyErr_SetString(PyExc_ValueError, "that are too many parts");
        return NULL;
    }
    parts *self = (parts *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->vectorcall = call;
    self->version = Py_NewRef(version);
    self->pure = Py_NewRef(pure);
    self->dash = PyUnicode_FromString("-");
    int failed = self->dash == NULL || find_slots(&self->class, request_class) < 0;
    for (Py_ssize_t i = 0; !failed && i < PyTuple_GET_SIZE(wanted); i++) {
        const char *kind;
        PyObject *name;
        failed = !PyArg_ParseTuple(PyTuple_GET_ITEM(wanted, i), "sO!", &kind, &PyBytes_Type, &name);
        if (!failed) {
            self->kinds[i] = strcmp(kind, "r") == 0 ? LINE : strcmp(kind, "u") == 0 ? USER : FIELD;
            self->names[i] = self->kinds[i] == LINE ? NULL : Py_NewRef(name);
            self->count = i + 1;
        }
    }
    if (failed) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void
forget(PyObject *object)
{
    parts *self = (parts *)object;
    PyTypeObject *type = Py_TYPE(object);
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Py_CLEAR(self->names[i]);
    }
    Py_CLEAR(self->class.type);
    Py_CLEAR(self->version);
    Py_CLEAR(self->pure);
    Py_CLEAR(self->dash);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMemberDef members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(parts, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot type_slots[] = {
    {Py_tp_doc, "Parts(request_class, version, wanted, pure)\n--\n\n"
                "Makes the parts of lines that requests have: called with a request, it gives a tuple of texts.\n\n"
                "Args:\n"
                "    request_class, version: RequestMessage, HttpVersion11.\n"
                "    wanted: pairs: \"r\" with b\"\" for the request line, \"u\" with the field in which the user is, and\n"
                "        anything else with the name of a field.\n"
                "    pure: called in its place where one of them is not usual."},
    {Py_tp_new, make},
    {Py_tp_dealloc, forget},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, members},
    {0, NULL},
};

static PyType_Spec type_spec = {
    .name = "preforkd.workers.http._logged.Parts",
    .basicsize = sizeof(parts),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = type_slots,
};

static int
execute(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &type_spec, NULL);
    if (type == NULL) {
        return -1;
    }
    int failed = PyModule_AddObjectRef(module, "Parts", type);
    Py_DECREF(type);
    return failed;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "preforkd.workers.http._logged",
    .m_doc = "Parts of lines of the access log, in C; see access_log_format.py.",
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__logged(void)
{
    return PyModuleDef_Init(&definition);
}
