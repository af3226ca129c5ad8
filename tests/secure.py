"""A client that speaks TLS around what it sends."""

import ssl

from wire import Connection


class Secure(Connection):
    """A connection with TLS around it. ``name`` is whom the client asks for, ``client`` its own certificate and key."""

    def __init__(self, address, trusted, name="127.0.0.1", client=None, session=None, context=None, **settings):
        super().__init__(address)
        try:
            if context is None:
                context = ssl.create_default_context(cafile=trusted)
                for setting, value in settings.items():
                    setattr(context, setting, value)
                if client:
                    context.load_cert_chain(*client)
            self.socket = context.wrap_socket(self.socket, server_hostname=name, session=session)
        except BaseException:
            self.socket.close()
            raise
