def index():
    """The guest book: a form with an upload, and what was written so far."""
    form = SQLFORM(db.entry)
    if form.process().accepted:
        redirect(URL("index"))
    return dict(form=form, entries=db(db.entry).select())


def download():
    return response.download(request, db)


def counter():
    session.count = (session.count or 0) + 1
    return str(session.count)


def nap():
    """A request that keeps the session until its gate opens (tests/waiting.py)."""
    import socket
    import time

    begun = time.monotonic()
    with socket.socket(socket.AF_UNIX) as place:
        try:
            place.connect("\0" + request.vars.gate)
            place.recv(1)
        except ConnectionError:
            pass
    session.naps = (session.naps or 0) + 1
    return "%s %s %s" % (session.naps, begun, time.monotonic())


def client():
    return "%s %s %s" % (request.client, request.env.request_method, request.env.remote_addr)


def fails():
    raise RuntimeError("inside a web2py controller")


def raw():
    """The length of a body that is no form."""
    return str(len(request.body.read()))


def argument():
    return request.args(0)


def helper():
    """A helper as a body: web2py iterates over its text."""
    raise HTTP(200, T("na\u00efve"))


def is_local():
    return str(request.is_local) + (" https" if request.is_https else "")


def job():
    """For cron."""
    with open("ran-models", "a") as file:
        file.write("x" if db.tables else "")
