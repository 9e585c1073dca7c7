"""The three kinds and the trainer's contract, as pydantic models. All else is built on these."""

GROUP = "tunesmith.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
