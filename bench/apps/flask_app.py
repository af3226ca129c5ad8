"""A Flask route that responds with JSON."""

import flask

app = flask.Flask(__name__)


@app.get("/users/<int:number>")
def user(number):
    return flask.jsonify(id=number, name="somebody", tags=["a", "b", "c"], active=True)


@app.post("/upload")
def upload():
    """Takes a form with a file, and responds with the file's length."""
    return str(len(flask.request.files["file"].read()))
