"""A package, so that what its tests share is taken down before other tests want the machine."""
