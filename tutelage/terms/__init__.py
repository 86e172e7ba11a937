"""The terms gate: may this model's output, or this data, serve this purpose, by this route, today, and by which clause?

`registry` loads the facts in `data/`, `check` gives verdicts, `model` holds the types.
"""
