"""The shared code of the notebooks: data, views, models, losses, spectra, probes, training."""
