/* The usual head, parsed in C: what `parsing.py` does for it, and nothing else.
 *
 * `parse_head()` takes the heads that clients usually send: HTTP/1.1, a method that we know, a target in origin-form, a
 * plain Host, at most one of each field that has a meaning. For every other head, right or wrong, it returns None, and
 * the reference in `parsing.py` judges it. So nothing is refused here, and no rule has to be known here that is not
 * about a usual head. `tests/workers/http/test_compiled.py` compares the two.
 *
 * First the whole head is looked at, where it lies, and only then anything is made of it.
 *
 * All input is bounded by the length of the bytes object, which ends with NUL: a read at s[n] is a read of that NUL,
 * which no table below takes for a part of anything. Words are loaded up to `last_load`.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#include "_message.h"
#include "_names.h"

enum { METHOD_MAX_SIZE = 16, METHODS_MAX = 64, VALUE_DIGITS_MAX = 18, FIELDS_MAX = 128 };

/* Noted beside TELLS and HAS_ID, which are 1 and 2; above them is the place of the first field with an id. */
enum { ODDLY = 4, SEVERAL_IDS = 8, PLACE_OF_ID = 4 };

typedef struct {
    PyObject *bytes;
    PyObject *text;
} method;

typedef struct {
    message_class class;
    PyObject *version; /* HttpVersion11 */
    PyObject *no_bytes;
    PyObject *no_text;
    table names;
    method methods[METHODS_MAX];
    Py_ssize_t method_count;
} state;

static unsigned char LOWER[256];  /* of a character of a token; 0: it is none */
static unsigned char TEXT[256];   /* may stand in a value */
static unsigned char TARGET[256]; /* may stand in a target: printable, and not # */
static unsigned char HOST_CHARACTER[256];

static void
fill_tables(void)
{
    for (int c = 0; c < 256; c++) {
        int is_alphanumeric = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        int is_token = is_alphanumeric || (c && strchr("!#$%&'*+-.^_`|~", c) != NULL);
        LOWER[c] = !is_token ? 0 : (unsigned char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
        TEXT[c] = c == '\t' || (c >= 32 && c != 127);
        TARGET[c] = c > 32 && c < 127 && c != '#';
        HOST_CHARACTER[c] = is_alphanumeric || c == '.' || c == '-';
    }
}

static inline int
is_blank(unsigned char c)
{
    return c == ' ' || c == '\t';
}

static int
is_plain_host(const unsigned char *value, Py_ssize_t size)
{
    Py_ssize_t i = 0;
    while (i < size && HOST_CHARACTER[value[i]]) {
        i++;
    }
    if (i == 0 || i == size) {
        return i > 0;
    }
    Py_ssize_t digits = size - i - 1;
    if (value[i] != ':' || digits < 1 || digits > 5 || (digits == 5 && value[i + 1] > '5')) {
        return 0;
    }
    for (i++; i < size; i++) {
        if (value[i] < '0' || value[i] > '9') {
            return 0;
        }
    }
    return 1;
}

/* The length that digits say; -1: they are none, or too many. */
static long long
length_of(const unsigned char *value, Py_ssize_t size)
{
    long long length = 0;
    if (size < 1 || size > VALUE_DIGITS_MAX) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < size; i++) {
        if (value[i] < '0' || value[i] > '9') {
            return -1;
        }
        length = length * 10 + (value[i] - '0');
    }
    return length;
}

static int
equals(const unsigned char *value, Py_ssize_t size, const char *text)
{
    return size == (Py_ssize_t)strlen(text) && memcmp(value, text, (size_t)size) == 0;
}

static PyObject *
method_of(state *st, const unsigned char *s, Py_ssize_t size)
{
    for (Py_ssize_t i = 0; i < st->method_count; i++) {
        PyObject *known = st->methods[i].bytes;
        if (PyBytes_GET_SIZE(known) == size && memcmp(PyBytes_AS_STRING(known), s, (size_t)size) == 0) {
            return st->methods[i].text;
        }
    }
    return NULL;
}

static PyObject *
ascii(const unsigned char *s, Py_ssize_t size)
{
    PyObject *text = PyUnicode_New(size, 127);
    if (text != NULL) {
        memcpy(PyUnicode_1BYTE_DATA(text), s, (size_t)size);
    }
    return text;
}

/* What the fields of a head say together. */
typedef struct {
    int seen[ODD]; /* each meaning at most once */
    int should_close;
    int chunked;
    long noted;
    long long length;
} facts;

/* Take in a field that has a meaning; 0: the head is an unusual one. */
static int
take_meaning(facts *said, enum meaning meaning, const unsigned char *value, Py_ssize_t size)
{
    if (meaning == ODD || said->seen[meaning]++) {
        return 0;
    }
    switch (meaning) {
    case HOST:
        return is_plain_host(value, size);
    case CONNECTION:
        said->should_close = equals(value, size, "close") || equals(value, size, "Close");
        return said->should_close || equals(value, size, "keep-alive") || equals(value, size, "Keep-Alive");
    case CONTENT_LENGTH:
        said->length = length_of(value, size);
        return said->length >= 0;
    default:
        return said->chunked = equals(value, size, "chunked");
    }
}

/* What is noted for a name that is not in the table: see `names.note_of()`. */
static int
note_of(state *st, const unsigned char *name, Py_ssize_t size)
{
    static const char start[] = "x-forwarded-";
    unsigned char plain[NAME_MAX_SIZE];
    int oddly = 0;
    for (Py_ssize_t i = 0; i < size; i++) {
        plain[i] = name[i] == '_' ? '-' : name[i];
        oddly |= name[i] == '_' ? ODDLY : 0;
    }
    entry *known = find_name(&st->names, plain, size);
    if (known->name != NULL && (known->meaning == TELLS || known->meaning == HAS_ID)) {
        return (int)known->meaning | oddly;
    }
    int tells = size >= (Py_ssize_t)strlen(start) && memcmp(plain, start, strlen(start)) == 0;
    return tells ? TELLS | oddly : 0;
}

/* A field where it lies. */
typedef struct {
    PyObject *known; /* its name in lower case; NULL: it is not in the table */
    const unsigned char *name;
    Py_ssize_t name_size;
    const unsigned char *value;
    Py_ssize_t value_size;
} field;

/* Look at the name of a field byte by byte; NULL: the head is an unusual one. What is noted for it goes to *note. */
static const entry *
look_at_name(state *st, field *one, int *note)
{
    unsigned char name[NAME_MAX_SIZE];
    Py_ssize_t size = 0;
    unsigned char c;
    while ((c = LOWER[one->name[size]]) != 0) {
        if (size == NAME_MAX_SIZE) {
            return NULL;
        }
        name[size++] = c;
    }
    one->name_size = size;
    if (size == 0 || one->name[size] != ':') {
        return NULL;
    }
    const entry *known = find_name(&st->names, name, size);
    if (known->name == NULL) {
        *note = note_of(st, name, size);
    }
    return known;
}

/* The first byte that may not stand in a value. */
static inline const unsigned char *
end_of_text(const unsigned char *s, const unsigned char *last_load)
{
    while (s <= last_load) {
        uint64_t word = load_word(s);
        uint64_t stops = below(word, ' ') | equal_to(word, 127);
        if (!stops) {
            s += 8;
            continue;
        }
        s += first_of(stops);
        if (*s != '\t') {
            return s;
        }
        s++;
    }
    while (TEXT[*s]) {
        s++;
    }
    return s;
}

/* Look at the field at *at, the one of this number, and move behind it; 0: the head is an unusual one. */
static inline int
look_at_field(state *st, const unsigned char **at, const unsigned char *last_load, field *one, facts *said,
              long number)
{
    int note = 0;
    one->name = *at;
    const entry *known = known_name(&st->names, one->name, last_load, &one->name_size);
    if (known == NULL) {
        known = look_at_name(st, one, &note);
        if (known == NULL) {
            return 0;
        }
    }
    one->known = known->name;
    const unsigned char *value = one->name + one->name_size + 1;
    while (is_blank(*value)) {
        value++;
    }
    const unsigned char *end = end_of_text(value, last_load);
    if (end[0] != '\r' || end[1] != '\n') {
        return 0;
    }
    *at = end + 2;
    while (end > value && is_blank(end[-1])) {
        end--;
    }
    one->value = value;
    one->value_size = end - value;
    if (known->name != NULL) {
        if (known->meaning > HAS_ID) {
            return take_meaning(said, known->meaning, value, end - value);
        }
        note = (int)known->meaning;
    }
    if (note & HAS_ID) {
        said->noted |= said->noted & HAS_ID ? SEVERAL_IDS : number << PLACE_OF_ID;
    }
    said->noted |= note;
    return 1;
}

static PyObject *
name_of(const field *one)
{
    if (one->known != NULL) {
        return Py_NewRef(one->known);
    }
    PyObject *name = PyBytes_FromStringAndSize(NULL, one->name_size);
    if (name != NULL) {
        for (Py_ssize_t i = 0; i < one->name_size; i++) {
            PyBytes_AS_STRING(name)[i] = (char)LOWER[one->name[i]];
        }
    }
    return name;
}

static PyObject *
make_fields(const field *found, Py_ssize_t count)
{
    PyObject *fields = PyList_New(count);
    for (Py_ssize_t i = 0; fields != NULL && i < count; i++) {
        PyObject *name = name_of(&found[i]);
        PyObject *value = PyBytes_FromStringAndSize((const char *)found[i].value, found[i].value_size);
        PyObject *pair = name != NULL && value != NULL ? PyTuple_New(2) : NULL;
        if (pair == NULL) {
            Py_XDECREF(name);
            Py_XDECREF(value);
            Py_CLEAR(fields);
            break;
        }
        PyTuple_SET_ITEM(pair, 0, name);
        PyTuple_SET_ITEM(pair, 1, value);
        PyList_SET_ITEM(fields, i, pair);
    }
    return fields;
}

/* Make the request; takes over the references to the last four, of which any may be NULL, for an exception. */
static PyObject *
make_request(state *st, const facts *said, Py_ssize_t size, PyObject *name, PyObject *path, PyObject *fields,
             PyObject *head)
{
    message_class *class = &st->class;
    PyObject *length = said->length >= 0 ? PyLong_FromLongLong(said->length) : Py_NewRef(Py_None);
    PyObject *noted = PyLong_FromLong(said->noted);
    PyObject *head_size = PyLong_FromSsize_t(size);
    PyObject *request = NULL;
    if (path != NULL && fields != NULL && head != NULL && length != NULL && noted != NULL && head_size != NULL) {
        request = class->type->tp_alloc(class->type, 0);
    }
    if (request == NULL) {
        Py_XDECREF(length);
        Py_XDECREF(noted);
        Py_XDECREF(head_size);
        Py_DECREF(name);
        Py_XDECREF(path);
        Py_XDECREF(fields);
        Py_XDECREF(head);
        return NULL;
    }
    SLOT(class, request, METHOD) = name;
    SLOT(class, request, PATH) = path;
    SLOT(class, request, FIELDS) = fields;
    SLOT(class, request, HEAD) = head;
    SLOT(class, request, LENGTH) = length;
    SLOT(class, request, NOTED) = noted;
    SLOT(class, request, HEAD_SIZE) = head_size;
    SLOT(class, request, VERSION) = Py_NewRef(st->version);
    SLOT(class, request, SHOULD_CLOSE) = Py_NewRef(said->should_close ? Py_True : Py_False);
    SLOT(class, request, CHUNKED) = Py_NewRef(said->chunked ? Py_True : Py_False);
    SLOT(class, request, EXPECTS) = Py_NewRef(Py_False);
    SLOT(class, request, HAS_UPGRADE) = Py_NewRef(Py_False);
    SLOT(class, request, UPGRADE) = Py_NewRef(Py_False);
    SLOT(class, request, COMPRESSION) = Py_NewRef(Py_None);
    SLOT(class, request, FORWARDED) = Py_NewRef(Py_None);
    SLOT(class, request, HEADERS) = Py_NewRef(Py_None);
    SLOT(class, request, ID_LINE) = Py_NewRef(st->no_bytes);
    SLOT(class, request, REQUEST_ID) = Py_NewRef(st->no_text);
    return request;
}

PyDoc_STRVAR(parse_head_doc,
             "parse_head(data, limit_headers, limit_body, limit_size)\n--\n\n"
             "Return the RequestMessage of a usual head and its size; None: it is for the reference in parsing.py.\n\n"
             "Args:\n"
             "    data: begins with the head.\n"
             "    limit_headers, limit_body: see Limits; 0: no limit.\n"
             "    limit_size: of the head.\n");

static PyObject *
parse_head(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    state *st = PyModule_GetState(module);
    if (count != 4 || !PyBytes_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "parse_head() takes bytes and three limits");
        return NULL;
    }
    if (st->class.type == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "setup() was not called");
        return NULL;
    }
    Py_ssize_t limit_headers = PyLong_AsSsize_t(args[1]);
    long long limit_body = PyLong_AsLongLong(args[2]);
    Py_ssize_t limit_size = PyLong_AsSsize_t(args[3]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    const unsigned char *s = (const unsigned char *)PyBytes_AS_STRING(args[0]);
    Py_ssize_t given = PyBytes_GET_SIZE(args[0]);
    Py_ssize_t size = 0;
    while (size <= METHOD_MAX_SIZE && LOWER[s[size]]) {
        size++;
    }
    PyObject *name = s[size] == ' ' ? method_of(st, s, size) : NULL;
    const unsigned char *target = s + size + 1;
    if (name == NULL || *target != '/') {
        Py_RETURN_NONE;
    }
    const unsigned char *at = target;
    while (TARGET[*at]) {
        at++;
    }
    Py_ssize_t target_size = at - target;
    if (strncmp((const char *)at, " HTTP/1.1\r\n", 11) != 0) {
        Py_RETURN_NONE;
    }
    at += 11;
    const unsigned char *last_load = s + given - 7; /* with the NUL; there are more than that by now */
    field found[FIELDS_MAX];
    facts said = {.length = -1};
    long number = 0;
    while (*at != '\r') {
        if (number == FIELDS_MAX || !look_at_field(st, &at, last_load, &found[number], &said, number)) {
            Py_RETURN_NONE;
        }
        number++;
    }
    if (at[1] != '\n' || !said.seen[HOST] || (said.chunked && said.seen[CONTENT_LENGTH])
        || (limit_headers > 0 && number > limit_headers) || (limit_body > 0 && said.length > limit_body)) {
        Py_RETURN_NONE;
    }
    size = at + 2 - s;
    if (size > limit_size) {
        Py_RETURN_NONE;
    }
    PyObject *head = size == given ? Py_NewRef(args[0]) : PyBytes_FromStringAndSize((const char *)s, size);
    PyObject *path = ascii(target, target_size);
    return make_request(st, &said, size, Py_NewRef(name), path, make_fields(found, number), head);
}

static enum meaning
meaning_of(const unsigned char *name, Py_ssize_t size)
{
    static const struct {
        const char *name;
        enum meaning meaning;
    } meanings[] = {{"host", HOST},
                    {"connection", CONNECTION},
                    {"content-length", CONTENT_LENGTH},
                    {"transfer-encoding", TRANSFER_ENCODING}};
    for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++) {
        if (equals(name, size, meanings[i].name)) {
            return meanings[i].meaning;
        }
    }
    return ODD;
}

/* Fill the table with names in lower case that are not in it; ODD: each has a meaning of its own. */
static int
add_names(state *st, PyObject *names, enum meaning meaning)
{
    PyObject *iterator = PyObject_GetIter(names);
    PyObject *name;
    while (iterator != NULL && (name = PyIter_Next(iterator)) != NULL) {
        enum meaning its = meaning;
        if (meaning == ODD && PyBytes_CheckExact(name)) {
            its = meaning_of((const unsigned char *)PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name));
        }
        int failed = add_name(&st->names, name, its);
        Py_DECREF(name);
        if (failed) {
            break;
        }
    }
    Py_XDECREF(iterator);
    return PyErr_Occurred() ? -1 : 0;
}

static int
add_methods(state *st, PyObject *methods)
{
    PyObject *bytes, *text;
    Py_ssize_t position = 0;
    while (PyDict_Next(methods, &position, &bytes, &text)) {
        if (st->method_count == METHODS_MAX || !PyBytes_CheckExact(bytes) || !PyUnicode_CheckExact(text)) {
            PyErr_SetString(PyExc_ValueError, "too many methods, or wrong ones");
            return -1;
        }
        st->methods[st->method_count++] = (method){Py_NewRef(bytes), Py_NewRef(text)};
    }
    return 0;
}

PyDoc_STRVAR(setup_doc,
             "setup(request_class, version, meant, telling, ids, plain, methods)\n--\n\n"
             "Take the vocabulary and what requests are made of; once, before anything else.\n\n"
             "Args:\n"
             "    request_class: RequestMessage.\n"
             "    version: HttpVersion11.\n"
             "    meant, telling, ids, plain: names of fields in lower case: with a meaning for the protocol, by which\n"
             "        proxies tell of clients, or say the id of a request, and others.\n"
             "    methods: from bytes to str; the most frequent ones first.\n");

static PyObject *
setup(PyObject *module, PyObject *args)
{
    state *st = PyModule_GetState(module);
    PyObject *request_class, *version, *meant, *telling, *ids, *plain, *methods;
    if (!PyArg_ParseTuple(args, "OOOOOOO!", &request_class, &version, &meant, &telling, &ids, &plain, &PyDict_Type,
                          &methods)) {
        return NULL;
    }
    if (st->class.type != NULL) {
        PyErr_SetString(PyExc_ValueError, "setup() was called before");
        return NULL;
    }
    st->no_bytes = PyBytes_FromStringAndSize(NULL, 0);
    st->no_text = PyUnicode_New(0, 0);
    if (st->no_bytes == NULL || st->no_text == NULL || add_names(st, meant, ODD) < 0
        || add_names(st, telling, TELLS) < 0
        || add_names(st, ids, HAS_ID) < 0 || add_names(st, plain, PLAIN) < 0 || add_methods(st, methods) < 0
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
    Py_CLEAR(st->no_bytes);
    Py_CLEAR(st->no_text);
    clear_names(&st->names);
    while (st->method_count > 0) {
        method *last = &st->methods[--st->method_count];
        Py_CLEAR(last->bytes);
        Py_CLEAR(last->text);
    }
    return 0;
}

static void
free_state(void *module)
{
    clear_state(module);
}

static PyMethodDef functions[] = {
    {"setup", setup, METH_VARARGS, setup_doc},
    {"parse_head", (PyCFunction)(void (*)(void))parse_head, METH_FASTCALL, parse_head_doc},
    {NULL, NULL, 0, NULL},
};

static int
execute(PyObject *module)
{
    (void)module;
    fill_tables();
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "preforkd.workers.http._parsing",
    .m_doc = "The usual head, parsed in C; see parsing.py.",
    .m_size = sizeof(state),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = visit_state,
    .m_clear = clear_state,
    .m_free = free_state,
};

PyMODINIT_FUNC
PyInit__parsing(void)
{
    return PyModuleDef_Init(&definition);
}
