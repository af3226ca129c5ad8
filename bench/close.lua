-- One request on each connection.
wrk.headers["Connection"] = "close"
