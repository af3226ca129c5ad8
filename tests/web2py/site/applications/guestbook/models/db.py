db = DAL("sqlite://guestbook.sqlite", migrate=True)
db.define_table(
    "entry",
    Field("name", requires=IS_NOT_EMPTY()),
    Field("picture", "upload"),
)
