"""A Flask route that answers JSON."""

import flask

app = flask.Flask(__name__)


@app.get("/users/<int:number>")
def user(number):
    return flask.jsonify(id=number, name="somebody", tags=["a", "b", "c"], active=True)
