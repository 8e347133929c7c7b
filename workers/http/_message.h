/* A RequestMessage as C sees it: an object with slots, see message.py. */

#ifndef PREFORKD_MESSAGE_H
#define PREFORKD_MESSAGE_H

#include <Python.h>
#include <structmember.h> /* T_OBJECT_EX; until 3.12 the only name */

enum slot {
    HEAD, HEADERS, CHUNKED, COMPRESSION, LENGTH, EXPECTS, FIELDS, FORWARDED, HAS_UPGRADE, HEAD_SIZE, ID_LINE, METHOD,
    NOTED, PATH, REQUEST_ID, SHOULD_CLOSE, UPGRADE, VERSION, SLOTS
};

typedef struct {
    PyTypeObject *type; /* RequestMessage */
    Py_ssize_t offset[SLOTS];
} message_class;

#define SLOT(class, message, slot) (*(PyObject **)((char *)(message) + (class)->offset[slot]))

/* Find the slots; -1: an exception, for the class is another one than this was written for. */
static int
find_slots(message_class *class, PyObject *type)
{
    static const char *const names[SLOTS] = {
        "_head", "_headers", "chunked", "compression", "content_length", "expect_continue", "fields", "forwarded",
        "has_upgrade", "head_size", "id_line", "method", "noted", "path", "request_id", "should_close", "upgrade",
        "version",
    };
    for (int i = 0; i < SLOTS; i++) {
        PyObject *found = PyObject_GetAttrString(type, names[i]);
        if (found == NULL) {
            return -1;
        }
        PyMemberDef *member = Py_IS_TYPE(found, &PyMemberDescr_Type) ? ((PyMemberDescrObject *)found)->d_member : NULL;
        if (member == NULL || member->type != T_OBJECT_EX) {
            Py_DECREF(found);
            PyErr_Format(PyExc_TypeError, "%s is no slot", names[i]);
            return -1;
        }
        class->offset[i] = member->offset;
        Py_DECREF(found);
    }
    class->type = (PyTypeObject *)Py_NewRef(type);
    return 0;
}

/* Whether it is one whose slots are all filled. */
static inline int
is_message(const message_class *class, PyObject *message)
{
    if (class->type == NULL || !PyObject_TypeCheck(message, class->type)) {
        return 0;
    }
    for (int i = 0; i < SLOTS; i++) {
        if (SLOT(class, message, i) == NULL) {
            return 0;
        }
    }
    return 1;
}

#endif
