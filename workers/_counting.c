/* The counter of requests, in C: what `pure_counter()` of `tally.py` does, in a fifth of its time.
 *
 * Nothing is allocated and nothing is waited for: three additions to integers of 64 bits, which are aligned, so another
 * process reads the old value or the new one. `tests/workers/test_tally.py` compares the two.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <structmember.h> /* its names, until 3.12 the only ones */

enum { BOUNDS_MAX = 64 };

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    Py_buffer cells;
    Py_ssize_t size;      /* cells */
    PyObject *methods;    /* dict: from a method to the first cell of its histograms */
    Py_ssize_t other;     /* that of all other methods */
    Py_ssize_t statuses;  /* the cell of a status n is statuses + n */
    Py_ssize_t width;     /* cells of one histogram: a count for each bucket, one above the last bound, the sum */
    Py_ssize_t bounds;
    double bound[BOUNDS_MAX];
} counter;

static PyObject *
count(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    counter *c = (counter *)self;
    if (PyVectorcall_NARGS(nargsf) != 3 || (names != NULL && PyTuple_GET_SIZE(names) != 0)) {
        PyErr_SetString(PyExc_TypeError, "a request is counted by its method, its status and its seconds");
        return NULL;
    }
    long status = PyLong_AsLong(args[1]);
    if (status == -1 && PyErr_Occurred()) {
        return NULL;
    }
    double seconds = PyFloat_AsDouble(args[2]);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    Py_ssize_t base = c->other;
    PyObject *known = PyDict_GetItemWithError(c->methods, args[0]);
    if (known != NULL) {
        base = PyLong_AsSsize_t(known);
    }
    if (PyErr_Occurred()) {
        return NULL;
    }
    base += c->width * (status < 600 ? status / 100 : 5);
    Py_ssize_t bucket = 0;
    while (bucket < c->bounds && c->bound[bucket] < seconds) {
        bucket++;
    }
    if (status < 0 || base < 0 || base + c->width > c->size) {
        PyErr_SetString(PyExc_ValueError, "a status that there is not");
        return NULL;
    }
    uint64_t *cells = c->cells.buf;
    cells[base + bucket]++;
    if (seconds > 0) {
        cells[base + c->width - 1] += (uint64_t)(seconds * 1e9);
    }
    if (status != 200 && status >= 100 && status < 600 && c->statuses + status < c->size) {
        cells[c->statuses + status]++;
    }
    Py_RETURN_NONE;
}

static PyObject *
move(PyObject *self, PyObject *cells)
{
    counter *c = (counter *)self;
    Py_buffer to;
    if (PyObject_GetBuffer(cells, &to, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS) < 0) {
        return NULL;
    }
    PyBuffer_Release(&c->cells);
    c->cells = to;
    c->size = to.len / (Py_ssize_t)sizeof(uint64_t);
    Py_RETURN_NONE;
}

static PyObject *
make(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"cells", "methods", "other", "statuses", "bounds", NULL};
    PyObject *cells, *methods, *bounds;
    Py_ssize_t other, statuses;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO!nnO!", names, &cells, &PyDict_Type, &methods, &other,
                                     &statuses, &PyTuple_Type, &bounds)) {
        return NULL;
    }
    if (PyTuple_GET_SIZE(bounds) > BOUNDS_MAX || other < 0 || statuses < 0) {
        PyErr_SetString(PyExc_ValueError, "there is no room for that");
        return NULL;
    }
    counter *c = (counter *)type->tp_alloc(type, 0);
    if (c == NULL) {
        return NULL;
    }
    c->vectorcall = count;
    c->other = other;
    c->statuses = statuses;
    c->bounds = PyTuple_GET_SIZE(bounds);
    c->width = c->bounds + 2;
    for (Py_ssize_t i = 0; i < c->bounds; i++) {
        c->bound[i] = PyFloat_AsDouble(PyTuple_GET_ITEM(bounds, i));
    }
    if (PyErr_Occurred() || PyObject_GetBuffer(cells, &c->cells, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS) < 0) {
        Py_DECREF(c);
        return NULL;
    }
    c->size = c->cells.len / (Py_ssize_t)sizeof(uint64_t);
    c->methods = Py_NewRef(methods);
    return (PyObject *)c;
}

static void
forget(PyObject *self)
{
    counter *c = (counter *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (c->cells.obj != NULL) {
        PyBuffer_Release(&c->cells);
    }
    Py_CLEAR(c->methods);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(counter, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef methods[] = {
    {"move", move, METH_O, "Count in these cells from now on."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot type_slots[] = {
    {Py_tp_doc, "Counts requests in cells of the scoreboard; see tally.py."},
    {Py_tp_new, make},
    {Py_tp_dealloc, forget},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, members},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec type_spec = {
    .name = "preforkd.workers._counting.Counter",
    .basicsize = sizeof(counter),
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
    int failed = PyModule_AddObjectRef(module, "Counter", type);
    Py_DECREF(type);
    return failed;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "preforkd.workers._counting",
    .m_doc = "The counter of requests, in C; see tally.py.",
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__counting(void)
{
    return PyModuleDef_Init(&definition);
}
