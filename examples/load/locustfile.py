"""Load for a site: ``locust --headless --users 50 --spawn-rate 10 --run-time 1m --host http://127.0.0.1:8000``.

Needs locust (``pip install locust``); without ``--headless`` it shows a page with its figures on port 8089.
"""

from locust import HttpUser, between, task


class WebUser(HttpUser):
    wait_time = between(1, 3)

    @task
    def index_page(self):
        self.client.get("/")

    @task(3)
    def view_page(self):
        self.client.get("/default/index")
