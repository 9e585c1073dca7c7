"""What all unit tests have in common."""

from hypothesis import settings

# The same examples each time: a change is not refused for what it did not bring.
settings.load_profile("ci")
