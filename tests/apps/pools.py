"""Uses processes of the standard library in a request: ``/KIND/METHOD``."""

import concurrent.futures
import multiprocessing
import os


def square(number):
    return number * number


def put(queue):
    queue.put(os.getpid())


def use_pool(context):
    with context.Pool(2) as pool:
        return pool.map(square, range(4))


def use_executor(context):
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        return list(executor.map(square, range(4)))


def use_process(context):
    queue = context.SimpleQueue()
    process = context.Process(target=put, args=(queue,))
    process.start()
    is_its_own = queue.get() == process.pid
    process.join()
    return [is_its_own, process.exitcode]


def use_manager(context):
    with context.Manager() as manager:
        shared = manager.dict(a=1)
        return dict(shared)


def application(environ, start_response):
    _, kind, method = environ["PATH_INFO"].split("/")
    use = {"pool": use_pool, "executor": use_executor, "process": use_process, "manager": use_manager}[kind]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [repr(use(multiprocessing.get_context(method))).encode()]
