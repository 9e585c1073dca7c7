"""kubectl tunesmith: what a user asks of Tunesmith, in one word each.

``main`` has the words and their options; each word has a file of its own, whose reading and
wording are pure. ``connection`` is the one place that talks to the API server.
"""
