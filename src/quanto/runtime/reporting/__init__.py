"""The report of one experiment: a self-contained page that needs no network."""
