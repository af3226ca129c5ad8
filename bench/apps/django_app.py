"""A Django site in one file: a page made from a template and rows of SQLite, and an upload."""

import os
from pathlib import Path

import django
from django.conf import settings

FOLDER = Path(__file__).resolve().parents[1] / ".cache" / "django"
FOLDER.mkdir(parents=True, exist_ok=True)
DATABASE = FOLDER / "books.sqlite3"

PAGE = """<!doctype html><title>{{ title }}</title><h1>{{ title|upper }}</h1><table>
{% for book in books %}<tr class="{% cycle 'odd' 'even' %}"><td>{{ book.title }}<td>{{ book.author.name|title }}<td>
{{ book.pages }}{% if book.pages > 300 %} (long){% endif %}{% endfor %}</table>
"""

LOADER = ("django.template.loaders.locmem.Loader", {"page": PAGE})

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE, "CONN_MAX_AGE": None}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of a measurement",
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "loaders": [
                    (
                        "django.template.loaders.cached.Loader",
                        [("django.template.loaders.locmem.Loader", {"page": PAGE})],
                    )
                ]
            },
        }
    ],
)
django.setup()

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection, models  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.shortcuts import render  # noqa: E402
from django.urls import path  # noqa: E402


class Author(models.Model):
    name = models.CharField(max_length=100)

    class Meta:
        app_label = "books"


class Book(models.Model):
    title = models.CharField(max_length=100)
    pages = models.IntegerField()
    author = models.ForeignKey(Author, on_delete=models.CASCADE)

    class Meta:
        app_label = "books"


def fill():
    """Make the database, under another name until it is complete."""
    if DATABASE.exists():
        return
    made = DATABASE.with_suffix(f".{os.getpid()}")
    connection.settings_dict["NAME"] = made
    with connection.schema_editor() as editor:
        editor.create_model(Author)
        editor.create_model(Book)
    authors = [Author.objects.create(name=f"author number {number}") for number in range(5)]
    Book.objects.bulk_create(
        Book(title=f"Book <{number}>", pages=100 + 20 * number, author=authors[number % 5]) for number in range(20)
    )
    connection.close()
    connection.settings_dict["NAME"] = DATABASE
    made.rename(DATABASE)


def books(request):
    return render(
        request, "page", {"title": "twenty books", "books": Book.objects.select_related("author").order_by("id")}
    )


def upload(request):
    return HttpResponse(str(request.FILES["file"].size), content_type="text/plain")


urlpatterns = [path("books", books), path("upload", upload)]
fill()
application = get_wsgi_application()
