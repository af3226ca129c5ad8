"""anygate.corrections: what is put right for servers that deviate from PEP 3333."""

import pytest
from anygate.corrections import corrected, decode_path, drop_missing_file_wrapper, part_port


@pytest.mark.parametrize(
    ("given", "address", "port"),
    [
        ("127.0.0.1:4711", "127.0.0.1", "4711"),
        ("[::1]:4711", "::1", "4711"),
        ("127.0.0.1", "127.0.0.1", None),
        ("::1", "::1", None),
        ("2001:db8::4711", "2001:db8::4711", None),
        ("", "", None),
    ],
)
def test_the_port_is_parted_from_an_address(given, address, port):
    environ = {"REMOTE_ADDR": given}
    part_port(environ)
    assert (environ["REMOTE_ADDR"], environ.get("REMOTE_PORT")) == (address, port)


def test_a_file_wrapper_that_is_none_is_dropped_and_one_that_is_there_stays():
    environ = {"wsgi.file_wrapper": None}
    drop_missing_file_wrapper(environ)
    assert environ == {}
    drop_missing_file_wrapper(environ)
    environ = {"wsgi.file_wrapper": list}
    drop_missing_file_wrapper(environ)
    assert environ == {"wsgi.file_wrapper": list}


def test_the_application_sees_a_corrected_environ():
    seen = []
    application = corrected(lambda environ, start_response: seen.append(environ["PATH_INFO"]) or [b""], decode_path)
    assert application({"PATH_INFO": "/caf%C3%A9%2F"}, None) == [b""]
    assert seen == ["/caf\xc3\xa9/"]
