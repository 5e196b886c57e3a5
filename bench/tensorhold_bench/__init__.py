"""Times tensorhold beside its peers: a fresh process a sample, interleaved, bytes compared."""
