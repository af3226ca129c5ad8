"""Settings of an inventory application behind nginx."""

import multiprocessing
import os

bind = ["unix:/run/inventory/inventory.sock", "127.0.0.1:8001"]
workers = min(multiprocessing.cpu_count() * 2 + 1, 3)
threads = 3
timeout = 120
graceful_timeout = 45
max_requests = 5000
max_requests_jitter = 500
preload_app = True
forwarded_allow_ips = "10.0.0.1,10.0.0.2"
accesslog = "-"
access_log_format = '%(h)s "%(r)s" %(s)s %(b)s %(L)s'
loglevel = os.environ.get("LOG_LEVEL", "warning")
limit_request_line = 8190
limit_request_fields = 64
worker_tmp_dir = "/dev/shm"
raw_env = ["DJANGO_SETTINGS_MODULE=inventory.settings", "TZ=UTC"]
chdir = "/opt/inventory"
statsd_host = "127.0.0.1:8125"
statsd_prefix = "inventory"
