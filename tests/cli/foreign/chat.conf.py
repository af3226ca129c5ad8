bind = ":5001"
worker_class = "gevent"
worker_connections = 500
workers = 2
keepalive = 65
timeout = 90
capture_output = True
errorlog = "-"
accesslog = None
certfile = "tls/cert.pem"
keyfile = "tls/key.pem"
wsgi_app = "chat:app"
umask = 0o027


def helper(name):
    return name.upper()
