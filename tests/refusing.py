"""Runs a program to which the kernel refuses a system call, as sandboxes do: ``refusing.py CALL PROGRAM ...``."""

import ctypes
import errno
import os
import platform
import struct
import sys

#: Numbers of system calls, by machine (``uname -m``).
NUMBERS = {"x86_64": {"memfd_create": 319}, "aarch64": {"memfd_create": 279}}

#: prctl(2), seccomp(2)
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
#: Of a filter (linux/bpf_common.h): load a word, jump if equal, return.
LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06


class Filter(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def refuse(call):
    """Have it fail with EPERM in this process and all that it becomes or starts."""
    instructions = [
        (LOAD, 0, 0, 0),
        (JUMP_EQUAL, 0, 1, NUMBERS[platform.machine()][call]),
        (RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.EPERM),
        (RETURN, 0, 0, SECCOMP_RET_ALLOW),
    ]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in instructions))
    library = ctypes.CDLL(None, use_errno=True)
    filtering = Filter(len(instructions), ctypes.addressof(program))
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filtering), 0, 0),
    ):
        if library.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    refuse(sys.argv[1])
    os.execv(sys.argv[2], sys.argv[2:])
