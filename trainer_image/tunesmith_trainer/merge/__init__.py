"""Merging: base model and adapter become one model, proven equal before anybody sees it."""
