/* The usual head, parsed in C: what `parsing.py` does for it, and nothing else.
 *
 * `parse_head()` takes the heads that clients usually send: HTTP/1.1, a method that we know, a target in origin-form, a
 * plain Host, at most one of each field that has a meaning. For every other head, right or wrong, it returns None, and
 * the reference in `parsing.py` judges it. So nothing is refused here, and no rule has to be known here that is not
 * about a usual head. `tests/workers/http/test_compiled.py` compares the two.
 *
 * `add_fields()` is that of `gateways/wsgi/environ.py`.
 *
 * All input is bounded by the length of the bytes object, which ends with NUL: a read at s[n] is a read of that NUL,
 * which no table below takes for a part of anything.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { NAME_MAX_SIZE = 48, METHOD_MAX_SIZE = 16, TABLE_SIZE = 1024, METHODS_MAX = 64, VALUE_DIGITS_MAX = 18 };

/* What a field means to us. TELLS, HAS_ID: proxies say something by it, see names.py. ODD: something that makes the head an unusual one. */
enum meaning { PLAIN, TELLS, HAS_ID, HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, ODD };
/* Noted beside TELLS and HAS_ID, which are 1 and 2; above them is the place of the first field with an id. */
enum { ODDLY = 4, SEVERAL_IDS = 8, PLACE_OF_ID = 4 };

typedef struct {
    PyObject *name;     /* bytes, in lower case */
    PyObject *variable; /* str for the environ; NULL: not for the app */
    uint32_t hash;
    enum meaning meaning;
} entry;

typedef struct {
    PyObject *bytes;
    PyObject *text;
} method;

typedef struct {
    PyObject *request_class; /* RequestMessage */
    PyObject *version;       /* HttpVersion11 */
    PyObject *http_cookie;
    PyObject *content_length; /* names of attributes */
    PyObject *chunked;
    PyObject *noted;
    entry names[TABLE_SIZE]; /* open addressing; at most a quarter is used */
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

#define HASH_START 2166136261u
#define HASH_STEP(hash, c) (((hash) ^ (c)) * 16777619u)

static uint32_t
hash_of(const unsigned char *name, Py_ssize_t size)
{
    uint32_t hash = HASH_START;
    for (Py_ssize_t i = 0; i < size; i++) {
        hash = HASH_STEP(hash, name[i]);
    }
    return hash;
}

/* The entry of a name in lower case, or the free one that it would get. */
static entry *
find_entry(state *st, const unsigned char *name, Py_ssize_t size, uint32_t hash)
{
    for (uint32_t i = hash % TABLE_SIZE;; i = (i + 1) % TABLE_SIZE) {
        entry *one = &st->names[i];
        if (one->name == NULL || (one->hash == hash && PyBytes_GET_SIZE(one->name) == size
                                  && memcmp(PyBytes_AS_STRING(one->name), name, (size_t)size) == 0)) {
            return one;
        }
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
    entry *known = find_entry(st, plain, size, hash_of(plain, size));
    if (known->name != NULL && (known->meaning == TELLS || known->meaning == HAS_ID)) {
        return (int)known->meaning | oddly;
    }
    int tells = size >= (Py_ssize_t)strlen(start) && memcmp(plain, start, strlen(start)) == 0;
    return tells ? TELLS | oddly : 0;
}

/* Append the field at *at and move behind it. 1: done; 0: the head is an unusual one; -1: an exception. */
static int
take_field(state *st, const unsigned char **at, PyObject *fields, facts *said)
{
    unsigned char name[NAME_MAX_SIZE];
    const unsigned char *s = *at;
    uint32_t hash = HASH_START;
    Py_ssize_t size = 0;
    unsigned char c;
    while ((c = LOWER[s[size]]) != 0) {
        if (size == NAME_MAX_SIZE) {
            return 0;
        }
        name[size++] = c;
        hash = HASH_STEP(hash, c);
    }
    if (size == 0 || s[size] != ':') {
        return 0;
    }
    const unsigned char *value = s + size + 1;
    while (is_blank(*value)) {
        value++;
    }
    const unsigned char *end = value;
    while (TEXT[*end]) {
        end++;
    }
    if (end[0] != '\r' || end[1] != '\n') {
        return 0;
    }
    *at = end + 2;
    while (end > value && is_blank(end[-1])) {
        end--;
    }
    entry *known = find_entry(st, name, size, hash);
    if (known->name != NULL && known->meaning > HAS_ID && !take_meaning(said, known->meaning, value, end - value)) {
        return 0;
    }
    int note = known->name == NULL ? note_of(st, name, size) : known->meaning <= HAS_ID ? (int)known->meaning : 0;
    if (note & HAS_ID) {
        said->noted |= said->noted & HAS_ID ? SEVERAL_IDS : (long)PyList_GET_SIZE(fields) << PLACE_OF_ID;
    }
    said->noted |= note;
    PyObject *first = known->name != NULL ? Py_NewRef(known->name) : PyBytes_FromStringAndSize((char *)name, size);
    PyObject *second = PyBytes_FromStringAndSize((const char *)value, end - value);
    PyObject *pair = first != NULL && second != NULL ? PyTuple_New(2) : NULL;
    if (pair == NULL) {
        Py_XDECREF(first);
        Py_XDECREF(second);
        return -1;
    }
    PyTuple_SET_ITEM(pair, 0, first);
    PyTuple_SET_ITEM(pair, 1, second);
    int failed = PyList_Append(fields, pair);
    Py_DECREF(pair);
    return failed ? -1 : 1;
}

static PyObject *
make_request(state *st, PyObject *name, PyObject *target, PyObject *fields, const facts *said, PyObject *head)
{
    PyObject *arguments[] = {name, target, st->version, fields, said->should_close ? Py_True : Py_False, head};
    PyObject *request = PyObject_Vectorcall(st->request_class, arguments, 6, NULL);
    if (request != NULL && said->chunked && PyObject_SetAttr(request, st->chunked, Py_True) < 0) {
        Py_CLEAR(request);
    }
    if (request != NULL && said->noted) {
        PyObject *noted = PyLong_FromLong(said->noted);
        if (noted == NULL || PyObject_SetAttr(request, st->noted, noted) < 0) {
            Py_CLEAR(request);
        }
        Py_XDECREF(noted);
    }
    if (request != NULL && said->length >= 0) {
        PyObject *length = PyLong_FromLongLong(said->length);
        if (length == NULL || PyObject_SetAttr(request, st->content_length, length) < 0) {
            Py_CLEAR(request);
        }
        Py_XDECREF(length);
    }
    return request;
}

PyDoc_STRVAR(parse_head_doc,
             "parse_head(head, limit_headers, limit_body)\n--\n\n"
             "Return the RequestMessage of a usual head; None: it is for the reference in parsing.py.");

static PyObject *
parse_head(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    state *st = PyModule_GetState(module);
    if (count != 3 || !PyBytes_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "parse_head() takes bytes and two limits");
        return NULL;
    }
    if (st->request_class == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "setup() was not called");
        return NULL;
    }
    Py_ssize_t limit_headers = PyLong_AsSsize_t(args[1]);
    long long limit_body = PyLong_AsLongLong(args[2]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    const unsigned char *s = (const unsigned char *)PyBytes_AS_STRING(args[0]);
    const unsigned char *end = s + PyBytes_GET_SIZE(args[0]);
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
    if (strncmp((const char *)at, " HTTP/1.1\r\n", 11) != 0) {
        Py_RETURN_NONE;
    }
    PyObject *path = ascii(target, at - target);
    PyObject *fields = path != NULL ? PyList_New(0) : NULL;
    PyObject *request = NULL;
    facts said = {.length = -1};
    int found = fields != NULL ? 1 : -1;
    at += 11;
    while (found == 1 && *at != '\r') {
        found = take_field(st, &at, fields, &said);
    }
    if (found == 1) {
        Py_ssize_t fields_count = PyList_GET_SIZE(fields);
        int is_usual = at[1] == '\n' && at + 2 == end && said.seen[HOST] && !(said.chunked && said.seen[CONTENT_LENGTH])
                       && !(limit_headers > 0 && fields_count > limit_headers)
                       && !(limit_body > 0 && said.length > limit_body);
        if (is_usual) {
            request = make_request(st, name, path, fields, &said, args[0]);
            found = request != NULL ? 1 : -1;
        }
        else {
            found = 0;
        }
    }
    Py_XDECREF(path);
    Py_XDECREF(fields);
    if (found == 0) {
        Py_RETURN_NONE;
    }
    return request;
}

/* The variable of a name (RFC 3875 section 4.1.18); NULL without an exception: the app must not see it. */
static PyObject *
variable_of(const unsigned char *name, Py_ssize_t size)
{
    if (memchr(name, '_', (size_t)size) != NULL || equals(name, size, "proxy")) {
        return NULL;
    }
    Py_ssize_t start = equals(name, size, "content-type") || equals(name, size, "content-length") ? 0 : 5;
    PyObject *variable = PyUnicode_New(start + size, 127);
    if (variable == NULL) {
        return NULL;
    }
    unsigned char *text = PyUnicode_1BYTE_DATA(variable);
    memcpy(text, "HTTP_", (size_t)start);
    for (Py_ssize_t i = 0; i < size; i++) {
        unsigned char c = name[i];
        text[start + i] = c == '-' ? '_' : (c >= 'a' && c <= 'z' ? c - 32 : c);
    }
    return variable;
}

static int
add_field(state *st, PyObject *environ, PyObject *name, PyObject *value)
{
    const unsigned char *s = (const unsigned char *)PyBytes_AS_STRING(name);
    Py_ssize_t size = PyBytes_GET_SIZE(name);
    entry *known = find_entry(st, s, size, hash_of(s, size));
    PyObject *variable = known->name != NULL ? Py_XNewRef(known->variable) : variable_of(s, size);
    if (variable == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *text = PyUnicode_DecodeLatin1(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), NULL);
    Py_ssize_t before = PyDict_GET_SIZE(environ);
    PyObject *there = text != NULL ? PyDict_SetDefault(environ, variable, text) : NULL;
    int failed = there == NULL;
    if (there != NULL && PyDict_GET_SIZE(environ) == before) {
        /* Again: joined as RFC 9110 section 5.3 and RFC 6265 section 5.4 say. */
        int is_cookie = PyUnicode_Compare(variable, st->http_cookie) == 0;
        PyObject *joined = PyUnicode_FromFormat(is_cookie ? "%U; %U" : "%U,%U", there, text);
        failed = joined == NULL || PyDict_SetItem(environ, variable, joined) < 0;
        Py_XDECREF(joined);
    }
    Py_XDECREF(text);
    Py_DECREF(variable);
    return failed ? -1 : 0;
}

PyDoc_STRVAR(add_fields_doc,
             "add_fields(environ, fields)\n--\n\n"
             "Add a request's fields to the environ of a WSGI call.");

static PyObject *
add_fields(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    state *st = PyModule_GetState(module);
    if (count != 2 || !PyDict_CheckExact(args[0]) || !PyList_CheckExact(args[1]) || st->http_cookie == NULL) {
        PyErr_SetString(PyExc_TypeError, "add_fields() takes a dict and a list of pairs of bytes");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(args[1]); i++) {
        PyObject *pair = PyList_GET_ITEM(args[1], i);
        if (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2 || !PyBytes_CheckExact(PyTuple_GET_ITEM(pair, 0))
            || !PyBytes_CheckExact(PyTuple_GET_ITEM(pair, 1))) {
            PyErr_SetString(PyExc_TypeError, "add_fields() takes a dict and a list of pairs of bytes");
            return NULL;
        }
        if (add_field(st, args[0], PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1)) < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
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
        const unsigned char *s = (const unsigned char *)PyBytes_AsString(name);
        Py_ssize_t size = s != NULL ? PyBytes_GET_SIZE(name) : 0;
        entry *one = s != NULL ? find_entry(st, s, size, hash_of(s, size)) : NULL;
        if (one != NULL && one->name == NULL) {
            one->name = Py_NewRef(name);
            one->hash = hash_of(s, size);
            one->meaning = meaning == ODD ? meaning_of(s, size) : meaning;
            one->variable = variable_of(s, size);
        }
        Py_DECREF(name);
        if (PyErr_Occurred()) {
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
    if (st->request_class != NULL || PyObject_Size(meant) + PyObject_Size(telling) + PyObject_Size(ids) + PyObject_Size(plain) > TABLE_SIZE / 4) {
        PyErr_SetString(PyExc_ValueError, "setup() was called before, or there are too many names");
        return NULL;
    }
    st->http_cookie = PyUnicode_InternFromString("HTTP_COOKIE");
    st->content_length = PyUnicode_InternFromString("content_length");
    st->chunked = PyUnicode_InternFromString("chunked");
    st->noted = PyUnicode_InternFromString("noted");
    if (st->http_cookie == NULL || st->content_length == NULL || st->chunked == NULL || st->noted == NULL
        || add_names(st, meant, ODD) < 0 || add_names(st, telling, TELLS) < 0 || add_names(st, ids, HAS_ID) < 0
        || add_names(st, plain, PLAIN) < 0
        || add_methods(st, methods) < 0) {
        return NULL;
    }
    st->version = Py_NewRef(version);
    st->request_class = Py_NewRef(request_class);
    Py_RETURN_NONE;
}

static int
visit_state(PyObject *module, visitproc visit, void *arg)
{
    state *st = PyModule_GetState(module);
    Py_VISIT(st->request_class);
    Py_VISIT(st->version);
    return 0;
}

static int
clear_state(PyObject *module)
{
    state *st = PyModule_GetState(module);
    Py_CLEAR(st->request_class);
    Py_CLEAR(st->version);
    Py_CLEAR(st->http_cookie);
    Py_CLEAR(st->content_length);
    Py_CLEAR(st->chunked);
    Py_CLEAR(st->noted);
    for (int i = 0; i < TABLE_SIZE; i++) {
        Py_CLEAR(st->names[i].name);
        Py_CLEAR(st->names[i].variable);
    }
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
    {"add_fields", (PyCFunction)(void (*)(void))add_fields, METH_FASTCALL, add_fields_doc},
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
