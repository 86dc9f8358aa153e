"""The shared code of the notebooks: data, views, models, losses, spectra, probes, training."""

from .runtime import keep_freed_memory

keep_freed_memory()
