"""All device work: the packed batch, the layer loop, attention, sampling."""
