/* Attributes of classes of Python with `__slots__`, read and written where they lie. */

#ifndef PREFORKD_SLOTS_H
#define PREFORKD_SLOTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h> /* its names, until 3.12 the only ones */

enum { SLOTS_MAX = 20 };

/* Where the slots of a class lie. */
typedef struct {
    PyTypeObject *type; /* NULL: not known yet, and nothing is one of it */
    Py_ssize_t at[SLOTS_MAX];
    PyObject *descriptors[SLOTS_MAX]; /* of the slots */
} layout;

/* The place of an attribute; NULL is in it when it was deleted, or not set yet. */
static inline PyObject **
place_of(const layout *of, PyObject *object, int number)
{
    return (PyObject **)((char *)object + of->at[number]);
}

/* Set an attribute; takes over a reference to the value. */
static inline void
set_slot(const layout *of, PyObject *object, int number, PyObject *value)
{
    PyObject **place = place_of(of, object, number);
    PyObject *old = *place;
    *place = value;
    Py_XDECREF(old);
}

/* Note where the slots of a class lie, whose names end with NULL. -1: an exception. */
static inline int
note_slots(layout *to, PyTypeObject *type, const char *const *names)
{
    for (int i = 0; i < SLOTS_MAX && names[i] != NULL; i++) {
        PyObject *descriptor = PyObject_GetAttrString((PyObject *)type, names[i]);
        if (descriptor == NULL) {
            return -1;
        }
        PyMemberDef *member = Py_IS_TYPE(descriptor, &PyMemberDescr_Type)
                                      && PyType_IsSubtype(type, PyDescr_TYPE(descriptor))
                                  ? ((PyMemberDescrObject *)descriptor)->d_member
                                  : NULL;
        int is_slot = member != NULL && member->type == T_OBJECT_EX && !(member->flags & READONLY);
        to->at[i] = is_slot ? member->offset : 0;
        Py_XSETREF(to->descriptors[i], descriptor);
        if (!is_slot) {
            PyErr_Format(PyExc_TypeError, "%s.%s is no slot", type->tp_name, names[i]);
            return -1;
        }
    }
    return 0;
}

#endif
