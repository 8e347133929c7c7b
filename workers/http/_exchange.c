/* The module: the methods as objects of Python, and what they know of its classes. See `_exchange.h`. */

#include "_exchange.h"
#include <stddef.h>
#include <string.h>

/* The methods, as attributes of their classes. */

static PyObject *
call_method(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *names)
{
    method *m = (method *)callable;
    Py_ssize_t count = PyVectorcall_NARGS(nargsf);
    if (m->pure == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the collector of garbage has had this already");
        return NULL;
    }
    if (count > 0 && PyObject_TypeCheck(args[0], m->owner)) {
        PyObject *result = m->function(m->st, args, count, names);
        if (result != NULL || PyErr_Occurred()) {
            return result;
        }
    }
    return PyObject_Vectorcall(m->pure, args, nargsf, names);
}

static PyObject *
bind_method(PyObject *self, PyObject *object, PyObject *type)
{
    (void)type;
    return object == NULL ? Py_NewRef(self) : PyMethod_New(self, object);
}

/* Name, documentation and whatever else there is of a function: those of the reference. */
static PyObject *
attribute_of_method(PyObject *self, PyObject *name)
{
    method *m = (method *)self;
    if (PyUnicode_CompareWithASCIIString(name, "__wrapped__") == 0) {
        return Py_NewRef(m->pure);
    }
    if (PyUnicode_CompareWithASCIIString(name, "__class__") == 0) {
        return PyObject_GenericGetAttr(self, name);
    }
    return PyObject_GetAttr(m->pure, name);
}

static int
visit_method(PyObject *self, visitproc visit, void *arg)
{
    method *m = (method *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(m->owner);
    Py_VISIT(m->pure);
    Py_VISIT(m->module);
    return 0;
}

static int
clear_method(PyObject *self)
{
    method *m = (method *)self;
    Py_CLEAR(m->owner);
    Py_CLEAR(m->pure);
    Py_CLEAR(m->module);
    return 0;
}

static void
free_method(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    clear_method(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef members_of_method[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(method, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots_of_method[] = {
    {Py_tp_call, PyVectorcall_Call},       {Py_tp_descr_get, bind_method}, {Py_tp_getattro, attribute_of_method},
    {Py_tp_traverse, visit_method},        {Py_tp_clear, clear_method},    {Py_tp_dealloc, free_method},
    {Py_tp_members, members_of_method},    {0, NULL},
};

static PyType_Spec spec_of_method = {
    .name = "preforkd.workers.http._exchange.method",
    .basicsize = sizeof(method),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR
             | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots_of_method,
};

/* What is known of a class: its slots, and its methods that are here. */
static const struct {
    const char *name;
    const char *slots[SLOTS_MAX];
    struct {
        const char *name;
        usual function;
    } methods[6];
} CLASSES[CLASS_COUNT] = {
    [HEAD] = {"ResponseHead",
              {"_writer", "exchange", "status", "sent_status", "_first_line", "_version", "_close", "lines",
               "content_length", "length_line", "_plain", "_takes_fields", "headers_sent", "ended", "_left",
               "head_is_due", "keeps"},
              {{"__init__", head_init}, {"add_header", head_add_header}, {"render", head_render}}},
    [RESPONSE] = {"Response",
                  {NULL},
                  {{"send_whole", response_send_whole}, {"send_headers", response_send_headers},
                   {"write", response_write}, {"write_eof", response_write_eof}}},
    [WIRE] = {"ResponseWriter",
              {"exchange", "response", "corked", "parts", "due", "paused", "connection", "_intake", "_transport",
               "sent", "_size"},
              {{"flush", writer_flush}}},
    [CONNECTION] = {"HttpConnection",
                    {"persistent", "state", "requests", "client_finished", "_service", "_intake", "_runner", "_handling",
                     "peer_is_trusted", "speaks_for_others"},
                    {{"data_received", connection_data_received}, {"end_deferred", connection_end_deferred}}},
    [INTAKE] = {"Intake",
                {"continue_is_due", "rest_may_be_long", "_connection", "_edge", "_times", "message", "parser", "payload",
                 "phase", "tail"},
                {{"take_head", intake_take_head}}},
    [CLOCK] = {"Clock", {"keep_alive_fields", "close_fields"}, {{NULL, NULL}}},
    [CALL] = {"HttpCall",
              {"gateway", "exchange", "message", "payload", "response", "phase", "is_gone", "_wants_trailers"},
              {{"__init__", call_init}, {"send", call_send}}},
    [ASGI_RESPONSE] = {"AsgiResponse", {NULL}, {{"add_pairs", asgi_add_pairs}}},
    [WSGI_RESPONSE] = {"WsgiResponse", {NULL}, {{"__init__", wsgi_init}}},
    [MESSAGE] = {"RequestMessage",
                 {"chunked", "compression", "content_length", "has_upgrade", "head_size", "id_line", "method", "noted", "should_close",
                  "version"},
                 {{NULL, NULL}}},
    [PARSER] = {"RequestParser",
                {"partial", "_usual_head", "_limit_headers", "_limit_body", "_short", "consumed", "in_body",
                 "body_received", "_left", "_chunked"},
                {{NULL, NULL}}},
    [TIMES] = {"Times", {"head"}, {{NULL, NULL}}},
    [EDGE] = {"Edge", {"_ids"}, {{"take", edge_take}}},
    [RUNNER] = {"Runner",
                {"_intake", "_loop", "_writer", "context", "rest", "task", "wakeup", "work"},
                {{"proceed", runner_proceed}, {"go_on", runner_go_on}}},
    [WAKEUP] = {"Wakeup", {"callback", "held"}, {{NULL, NULL}}},
    [DEFERRED] = {"Deferred", {NULL}, {{NULL, NULL}}},
    [HANDLING] = {"Handling",
                  {"_connection", "_connections", "_has_guard", "_intake", "_last_request", "_reporting", "_runner",
                   "_writer"},
                  {{"process_request", handling_process_request}, {"_after_handler", handling_after_handler}}},
    [REPORTING] = {"Reporting", {"_count", "_logging", "wants_time"}, {{"complete", reporting_complete}}},
    [EXCHANGE] = {"Exchange",
                  {"request", "body", "wire", "carrier", "observer", "keep_alive", "began", "deferred", "is_logged",
                   "has_expired", "has_waited", "keeps_task", "needs_no_answer"},
                  {{NULL, NULL}}},
    [CONNECTIONS] = {"Connections", {"active"}, {{NULL, NULL}}},
    [THREAD_CALL] = {"ThreadCall",
                     {"app", "_environs", "_client", "exchange", "_answer", "hop_by_hop", "_post", "begun", "body", "hints",
                      "input", "_context", "_open", "committed", "posted", "complete", "ended", "abandoned",
                      "queue_seconds", "due"},
                     {{"__init__", thread_call_init}, {"run", thread_call_run}, {"advance", thread_call_advance}}},
    [ANSWER] = {"Answer",
                {"gateway", "pool", "_wire", "_call", "_exchange", "_payload", "_response", "_error", "_written"},
                {{"of", answer_of}, {"take", answer_take}}},
    [WSGI_CALL] = {"Call", {NULL}, {{"start_response", wsgi_start_response}}},
    [ENVIRONS] = {"EnvironSource", {"_usual", "_base", "_variables"}, {{"environ", environs_environ}}},
    [TEMPLATES] = {"Templates", {"_usual", "_http", "_state", "_extensions"}, {{"http", templates_http}}},
    [HOST] = {"ServerHttpProtocol", {"allowed_methods"}, {{NULL, NULL}}},
};

static PyObject *
make_method(PyObject *module, PyTypeObject *owner, const char *name, usual function)
{
    state *st = PyModule_GetState(module);
    PyObject *names = PyObject_GetAttrString((PyObject *)owner, "__dict__");
    PyObject *pure = names != NULL ? PyMapping_GetItemString(names, name) : NULL;
    Py_XDECREF(names);
    method *m = pure != NULL ? (method *)st->method_type->tp_alloc(st->method_type, 0) : NULL;
    if (m == NULL) {
        Py_XDECREF(pure);
        return NULL;
    }
    m->vectorcall = call_method;
    m->function = function;
    m->owner = (PyTypeObject *)Py_NewRef((PyObject *)owner);
    m->pure = pure;
    m->module = Py_NewRef(module);
    m->st = st;
    return (PyObject *)m;
}

PyDoc_STRVAR(learn_doc,
             "learn(cls)\n--\n\n"
             "Take note of a class that has a part in responses, once, and return its methods that are here, by name.");

static PyObject *
learn(PyObject *module, PyObject *cls)
{
    state *st = PyModule_GetState(module);
    PyTypeObject *type = (PyTypeObject *)cls;
    int number = 0;
    if (!PyType_Check(cls) || !(type->tp_flags & Py_TPFLAGS_HEAPTYPE)) {
        PyErr_SetString(PyExc_TypeError, "learn() takes a class of Python");
        return NULL;
    }
    while (number < CLASS_COUNT && strcmp(CLASSES[number].name, type->tp_name) != 0) {
        number++;
    }
    if (number == CLASS_COUNT || st->classes[number].type != NULL) {
        PyErr_Format(PyExc_ValueError, "nothing is known here of %s, or it was learned before", type->tp_name);
        return NULL;
    }
    int is_response = number == RESPONSE || number == ASGI_RESPONSE || number == WSGI_RESPONSE;
    if (is_response && (st->classes[HEAD].type == NULL || !PyType_IsSubtype(type, st->classes[HEAD].type))) {
        PyErr_Format(PyExc_TypeError, "%s is no ResponseHead", type->tp_name);
        return NULL;
    }
    layout *one = &st->classes[number];
    if (note_slots(one, type, CLASSES[number].slots) < 0) {
        return NULL;
    }
    PyObject *methods = PyDict_New();
    for (int i = 0; methods != NULL && CLASSES[number].methods[i].name != NULL; i++) {
        const char *name = CLASSES[number].methods[i].name;
        PyObject *m = make_method(module, type, name, CLASSES[number].methods[i].function);
        if (m != NULL && (number == ASGI_RESPONSE || number == INTAKE)) {
            PyObject **pure = number == INTAKE ? &st->pure_take_head : &st->pure_add_pairs;
            Py_XSETREF(*pure, Py_NewRef(((method *)m)->pure));
        }
        if (m == NULL || PyDict_SetItemString(methods, name, m) < 0) {
            Py_CLEAR(methods);
        }
        Py_XDECREF(m);
    }
    if (methods != NULL) {
        one->type = (PyTypeObject *)Py_NewRef(cls);
    }
    return methods;
}

/* Whether each attribute that is read in its slot is the slot also for objects of a class. */
static int
has_slots(state *st, int class, PyTypeObject *type)
{
    const layout *of = &st->classes[class];
    for (int i = 0; i < SLOTS_MAX && CLASSES[class].slots[i] != NULL; i++) {
        PyObject *found = PyObject_GetAttrString((PyObject *)type, CLASSES[class].slots[i]);
        Py_XDECREF(found);
        if (found == NULL || found != of->descriptors[i]) {
            PyErr_Clear();
            return 0;
        }
    }
    return 1;
}

int
is_connection_type(state *st, PyTypeObject *type)
{
    int found = st->classes[CONNECTION].type != NULL && PyType_IsSubtype(type, st->classes[CONNECTION].type)
                && has_slots(st, CONNECTION, type);
    if (found && st->classes[HOST].type != NULL && PyType_IsSubtype(type, st->classes[HOST].type)) {
        found = has_slots(st, HOST, type);
    }
    if (found) {
        Py_XSETREF(st->connection_type, (PyTypeObject *)Py_NewRef((PyObject *)type));
        st->connection_version = type->tp_version_tag;
    }
    return found;
}

PyDoc_STRVAR(setup_doc,
             "setup(clock, plain_lines, version, done, active, fields)\n--\n\n"
             "Take what responses are made of; once, before anything else.\n\n"
             "Args:\n"
             "    clock: that of clock.py.\n"
             "    plain_lines: of fields.py.\n"
             "    version: HttpVersion11.\n"
             "    done: that of done.py.\n"
             "    active: ConnectionState.ACTIVE.\n"
             "    fields: the names of fields.py; `_request_id` is read there.\n");

static PyObject *
setup(PyObject *module, PyObject *args)
{
    state *st = PyModule_GetState(module);
    PyObject *clock, *plain_lines, *version, *done, *active, *fields;
    if (!PyArg_ParseTuple(args, "OO!OOOO!", &clock, &PyDict_Type, &plain_lines, &version, &done, &active,
                          &PyDict_Type, &fields)) {
        return NULL;
    }
    if (st->clock != NULL) {
        PyErr_SetString(PyExc_ValueError, "setup() was called before");
        return NULL;
    }
    PyObject *methods = learn(module, (PyObject *)Py_TYPE(clock));
    if (methods == NULL) {
        return NULL;
    }
    Py_DECREF(methods);
    st->clock = Py_NewRef(clock);
    st->plain_lines = Py_NewRef(plain_lines);
    st->version = Py_NewRef(version);
    st->done = Py_NewRef(done);
    st->active = Py_NewRef(active);
    st->fields = Py_NewRef(fields);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(setup_flow_doc,
             "setup_flow(phases, new, idle, empty_payload, whole_payload, unobserved, offspring, enter_task, leave_task, monotonic, "
             "raising, steps_of, bytes_io, tells)\n--\n\n"
             "Take what the way of a request needs; once, behind `setup()`. Until then the reference goes it.\n\n"
             "Args:\n"
             "    phases: those of intake.py.\n"
             "    new, idle: of ConnectionState.\n"
             "    empty_payload, whole_payload: EMPTY_PAYLOAD, and what makes a body that is there whole.\n"
             "    unobserved: the observer of an exchange whose service has none.\n"
             "    offspring: the names of offspring.py; `strayed` and `end` are read there.\n"
             "    enter_task, leave_task: of asyncio.\n"
             "    monotonic: the clock.\n"
             "    raising, steps_of: of waiter.py and handling.py.\n"
             "    bytes_io: io.BytesIO.\n"
             "    tells: of names.py.\n");

static PyObject *
setup_flow(PyObject *module, PyObject *args)
{
    state *st = PyModule_GetState(module);
    PyObject *phases, **one[] = {&st->new, &st->idle, &st->empty_payload, &st->whole_payload, &st->unobserved, &st->offspring,
                                 &st->enter_task, &st->leave_task, &st->monotonic, &st->raising, &st->steps_of,
                                 &st->bytes_io};
    PyObject *given[sizeof one / sizeof one[0]];
    long tells;
    if (!PyArg_ParseTuple(args, "O!OOOOOO!OOOOOOl", &PyTuple_Type, &phases, &given[0], &given[1], &given[2], &given[3],
                          &given[4], &PyDict_Type, &given[5], &given[6], &given[7], &given[8], &given[9], &given[10], &given[11], &tells)) {
        return NULL;
    }
    if (st->new != NULL || PyTuple_GET_SIZE(phases) != PHASES) {
        PyErr_SetString(PyExc_ValueError, "setup_flow() was called before, or there is another number of phases");
        return NULL;
    }
    st->zero = PyFloat_FromDouble(0.0);
    st->is_last = PyTuple_Pack(1, st->names.is_last);
    st->input = PyUnicode_InternFromString("wsgi.input");
    st->early_hints = PyUnicode_InternFromString("wsgi.early_hints");
    if (st->zero == NULL || st->input == NULL || st->early_hints == NULL || st->is_last == NULL) {
        return NULL;
    }
    st->tells = tells;
    for (int i = 0; i < PHASES; i++) {
        st->phases[i] = Py_NewRef(PyTuple_GET_ITEM(phases, i));
    }
    for (size_t i = 0; i < sizeof one / sizeof one[0]; i++) {
        *one[i] = Py_NewRef(given[i]);
    }
    Py_RETURN_NONE;
}

/* The module. */

/* What came by `setup_flow()`, in a row. */
#define FLOW(X)                                                                                                        \
    X(new) X(idle) X(empty_payload) X(whole_payload) X(unobserved) X(offspring) X(enter_task) X(leave_task) X(monotonic) X(raising)  \
    X(steps_of) X(bytes_io)

static int
visit_state(PyObject *module, visitproc visit, void *arg)
{
    state *st = PyModule_GetState(module);
    Py_VISIT(st->method_type);
    for (int i = 0; i < CLASS_COUNT; i++) {
        Py_VISIT(st->classes[i].type);
        for (int slot = 0; slot < SLOTS_MAX; slot++) {
            Py_VISIT(st->classes[i].descriptors[slot]);
        }
    }
    Py_VISIT(st->clock);
    Py_VISIT(st->plain_lines);
    Py_VISIT(st->version);
    Py_VISIT(st->done);
    Py_VISIT(st->active);
    Py_VISIT(st->fields);
    Py_VISIT(st->pure_add_pairs);
    Py_VISIT(st->pure_take_head);
    Py_VISIT(st->connection_type);
#define VISIT(name) Py_VISIT(st->name);
    FLOW(VISIT)
    for (int i = 0; i < PHASES; i++) {
        Py_VISIT(st->phases[i]);
    }
    return 0;
}

static int
clear_state(PyObject *module)
{
    state *st = PyModule_GetState(module);
    Py_CLEAR(st->method_type);
    for (int i = 0; i < CLASS_COUNT; i++) {
        Py_CLEAR(st->classes[i].type);
        for (int slot = 0; slot < SLOTS_MAX; slot++) {
            Py_CLEAR(st->classes[i].descriptors[slot]);
        }
    }
    Py_CLEAR(st->clock);
    Py_CLEAR(st->plain_lines);
    Py_CLEAR(st->version);
    Py_CLEAR(st->done);
    Py_CLEAR(st->active);
    Py_CLEAR(st->fields);
    Py_CLEAR(st->pure_add_pairs);
    Py_CLEAR(st->pure_take_head);
    Py_CLEAR(st->connection_type);
#define CLEAR_FLOW(name) Py_CLEAR(st->name);
    FLOW(CLEAR_FLOW)
    for (int i = 0; i < PHASES; i++) {
        Py_CLEAR(st->phases[i]);
    }
    return 0;
}

static void
free_state(void *module)
{
    state *st = PyModule_GetState(module);
    clear_state(module);
    Py_CLEAR(st->kind_start);
    Py_CLEAR(st->kind_body);
    Py_CLEAR(st->head);
    Py_CLEAR(st->nothing);
    Py_CLEAR(st->zero);
    Py_CLEAR(st->is_last);
    Py_CLEAR(st->input);
    Py_CLEAR(st->early_hints);
    for (int i = 0; i <= PHASE_COMPLETE; i++) {
        Py_CLEAR(st->numbers[i]);
    }
#define CLEAR(name) Py_CLEAR(st->names.name);
    NAMES(CLEAR)
}

static int
execute(PyObject *module)
{
    state *st = PyModule_GetState(module);
    fill_tables();
    st->method_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec_of_method, NULL);
    st->kind_start = PyUnicode_InternFromString("http.response.start");
    st->kind_body = PyUnicode_InternFromString("http.response.body");
    st->head = PyUnicode_InternFromString("HEAD");
    st->nothing = PyBytes_FromStringAndSize(NULL, 0);
    for (int i = 0; i <= PHASE_COMPLETE; i++) {
        st->numbers[i] = PyLong_FromLong(i);
    }
#define INTERN(name) st->names.name = PyUnicode_InternFromString(#name);
    NAMES(INTERN)
    return PyErr_Occurred() ? -1 : 0;
}

static PyMethodDef functions[] = {
    {"setup", setup, METH_VARARGS, setup_doc},
    {"setup_flow", setup_flow, METH_VARARGS, setup_flow_doc},
    {"learn", learn, METH_O, learn_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "preforkd.workers.http._exchange",
    .m_doc = "The usual exchange, in C; see connection.py and its parts, and response.py.",
    .m_size = sizeof(state),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = visit_state,
    .m_clear = clear_state,
    .m_free = free_state,
};

PyMODINIT_FUNC
PyInit__exchange(void)
{
    return PyModuleDef_Init(&definition);
}
