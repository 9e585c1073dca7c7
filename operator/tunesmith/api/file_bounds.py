"""How large files of strangers may be, in bytes: the same for who evaluates and who serves them."""

#: adapter_config.json: some kilobytes are usual.
LARGEST_ADAPTER_CONFIGURATION = 1024**2
#: The header of adapter_model.safetensors, which is held as objects.
LARGEST_ADAPTER_HEADER = 32 * 1024**2
#: All of an adapter's tensors.
LARGEST_ADAPTER_WEIGHTS = 32 * 1024**3
#: A model's config.json. As lists of lists, 256 MiB of text would be many gigabytes of objects.
LARGEST_MODEL_CONFIGURATION = 16 * 1024**2
