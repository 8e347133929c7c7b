/* Ids of requests, in C: what `request_id.py` does for most of them, in a fifth of the time.
 *
 * The unusual stays there: ids that are not to be believed, several of them, odd spellings.
 * `tests/workers/test_request_id.py` and `test_edge.py` run on both.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h> /* getentropy() */
#include <time.h>
#include <unistd.h>     /* likewise, of glibc */

#include "http/_message.h"

enum { ID_SIZE = 36, ID_MAX_SIZE = 128 };
enum { HAS_ID = 2, ODDLY = 4, SEVERAL_IDS = 8, PLACE_OF_ID = 4 }; /* see names.py */
enum { RANDOM_SIZE = 10, POOL_SIZE = 25 * RANDOM_SIZE }; /* getentropy() gives 256 bytes at most */

typedef struct {
    PyObject_HEAD
    message_class class;
    PyObject *name;  /* bytes: of the field, in lower case */
    PyObject *start; /* bytes: its line, up to the value */
    int is_noted;    /* requests that have the field are noted */
    int left;        /* bytes of the pool that were not used yet */
    unsigned char pool[POOL_SIZE];
} ids;

static void
write_hex(char **to, uint64_t value, int digits)
{
    while (digits-- > 0) {
        *(*to)++ = "0123456789abcdef"[value >> (4 * digits) & 15];
    }
}

/* Write a UUID of version 7 (RFC 9562 section 5.7): milliseconds since the epoch, then 74 random bits.
 *
 * -1: an exception. */
static int
write_id(ids *self, char *to)
{
    struct timespec now;
    if (self->left < RANDOM_SIZE) {
        if (getentropy(self->pool, POOL_SIZE) < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        self->left = POOL_SIZE;
    }
    self->left -= RANDOM_SIZE;
    const unsigned char *random = self->pool + self->left;
    uint64_t tail;
    memcpy(&tail, random, sizeof tail);
    unsigned head = random[8] << 8 | random[9];
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t millisecond = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    write_hex(&to, millisecond >> 16, 8);
    *to++ = '-';
    write_hex(&to, millisecond, 4);
    *to++ = '-';
    write_hex(&to, 0x7000 | (head & 0xfff), 4);
    *to++ = '-';
    write_hex(&to, 0x8000 | (tail >> 48 & 0x3fff), 4); /* section 4.1: the variant 10, two bits */
    *to++ = '-';
    write_hex(&to, tail, 12);
    return 0;
}

static PyObject *
text_of(const char *s, Py_ssize_t size)
{
    PyObject *text = PyUnicode_New(size, 127);
    if (text != NULL) {
        memcpy(PyUnicode_1BYTE_DATA(text), s, (size_t)size);
    }
    return text;
}

/* Have a request be known by an id; -1: an exception. */
static int
name_request(ids *self, PyObject *message, const char *id, Py_ssize_t size)
{
    Py_ssize_t start = PyBytes_GET_SIZE(self->start);
    PyObject *text = text_of(id, size);
    PyObject *line = text != NULL ? PyBytes_FromStringAndSize(NULL, start + size + 2) : NULL;
    if (line == NULL) {
        Py_XDECREF(text);
        return -1;
    }
    char *to = PyBytes_AS_STRING(line);
    memcpy(to, PyBytes_AS_STRING(self->start), (size_t)start);
    memcpy(to + start, id, (size_t)size);
    memcpy(to + start + size, "\r\n", 2);
    Py_SETREF(SLOT(&self->class, message, REQUEST_ID), text);
    Py_SETREF(SLOT(&self->class, message, ID_LINE), line);
    return 0;
}

static int
takes_message(ids *self, PyObject *message)
{
    if (is_message(&self->class, message) && PyList_CheckExact(SLOT(&self->class, message, FIELDS))
        && PyLong_Check(SLOT(&self->class, message, NOTED))) {
        return 1;
    }
    PyErr_SetString(PyExc_TypeError, "that is no RequestMessage");
    return 0;
}

static int
give_id(ids *self, PyObject *message)
{
    char id[ID_SIZE];
    if (write_id(self, id) < 0) {
        return -1;
    }
    PyObject *value = PyBytes_FromStringAndSize(id, ID_SIZE);
    PyObject *pair = value != NULL ? PyTuple_Pack(2, self->name, value) : NULL;
    Py_XDECREF(value);
    int failed = pair == NULL || PyList_Append(SLOT(&self->class, message, FIELDS), pair) < 0;
    Py_XDECREF(pair);
    return failed ? -1 : name_request(self, message, id, ID_SIZE);
}

PyDoc_STRVAR(give_doc, "Give an id to a request that has none.");

static PyObject *
give(PyObject *object, PyObject *message)
{
    if (!takes_message((ids *)object, message) || give_id((ids *)object, message) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Take the id that stands at this place; 1: done; 0: there is none, or no good one; -1: an exception. */
static int
take_id(ids *self, PyObject *message, Py_ssize_t place)
{
    PyObject *fields = SLOT(&self->class, message, FIELDS);
    PyObject *pair = place >= 0 && place < PyList_GET_SIZE(fields) ? PyList_GET_ITEM(fields, place) : NULL;
    if (pair == NULL || !PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2) {
        return 0; /* it stands elsewhere by now */
    }
    PyObject *name = PyTuple_GET_ITEM(pair, 0), *value = PyTuple_GET_ITEM(pair, 1);
    Py_ssize_t name_size = PyBytes_GET_SIZE(self->name);
    if (!PyBytes_CheckExact(name) || !PyBytes_CheckExact(value) || PyBytes_GET_SIZE(name) != name_size
        || memcmp(PyBytes_AS_STRING(name), PyBytes_AS_STRING(self->name), (size_t)name_size) != 0) {
        return 0;
    }
    const char *s = PyBytes_AS_STRING(value);
    Py_ssize_t size = PyBytes_GET_SIZE(value);
    int is_good = size > 0 && size <= ID_MAX_SIZE;
    for (Py_ssize_t i = 0; is_good && i < size; i++) {
        is_good = s[i] >= '!' && s[i] <= '~';
    }
    return is_good && name_request(self, message, s, size) < 0 ? -1 : is_good;
}

PyDoc_STRVAR(take_doc,
             "take(message, believes)\n--\n\n"
             "Take the id of a request, if it is to be believed, or give it one; False: it is an unusual one.");

static PyObject *
take(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    ids *self = (ids *)object;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "take() takes a request and whether it is to be believed");
        return NULL;
    }
    if (!takes_message(self, args[0])) {
        return NULL;
    }
    long noted = PyLong_AsLong(SLOT(&self->class, args[0], NOTED));
    if (noted == -1 && PyErr_Occurred()) {
        return NULL;
    }
    int is_done = 0;
    if (!(noted & HAS_ID)) {
        is_done = !self->is_noted ? 0 : give_id(self, args[0]) < 0 ? -1 : 1;
    }
    else if (!(noted & (ODDLY | SEVERAL_IDS)) && args[1] == Py_True) {
        is_done = take_id(self, args[0], noted >> PLACE_OF_ID);
    }
    return is_done < 0 ? NULL : PyBool_FromLong(is_done);
}

PyDoc_STRVAR(new_doc, "Return a new id.");

static PyObject *
new_id(PyObject *object, PyObject *Py_UNUSED(nothing))
{
    char id[ID_SIZE];
    return write_id((ids *)object, id) < 0 ? NULL : text_of(id, ID_SIZE);
}

static PyObject *
make(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"request_class", "name", "start", "is_noted", NULL};
    PyObject *request_class, *name, *start;
    int is_noted;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!SSp", names, &PyType_Type, &request_class, &name, &start,
                                     &is_noted)) {
        return NULL;
    }
    ids *self = (ids *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    if (find_slots(&self->class, request_class) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->name = Py_NewRef(name);
    self->start = Py_NewRef(start);
    self->is_noted = is_noted;
    return (PyObject *)self;
}

static void
forget(PyObject *object)
{
    ids *self = (ids *)object;
    PyTypeObject *type = Py_TYPE(object);
    Py_CLEAR(self->class.type);
    Py_CLEAR(self->name);
    Py_CLEAR(self->start);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"new", new_id, METH_NOARGS, new_doc},
    {"give", give, METH_O, give_doc},
    {"take", (PyCFunction)(void (*)(void))take, METH_FASTCALL, take_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot type_slots[] = {
    {Py_tp_doc, "Gives requests their ids; see request_id.py."},
    {Py_tp_new, make},
    {Py_tp_dealloc, forget},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec type_spec = {
    .name = "preforkd.workers._ids.Ids",
    .basicsize = sizeof(ids),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = type_slots,
};

static int
execute(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &type_spec, NULL);
    if (type == NULL) {
        return -1;
    }
    int failed = PyModule_AddObjectRef(module, "Ids", type);
    Py_DECREF(type);
    return failed;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "preforkd.workers._ids",
    .m_doc = "Ids of requests, in C; see request_id.py.",
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__ids(void)
{
    return PyModuleDef_Init(&definition);
}
