"""The eight steps of the pipeline graph, one folder each; stages never import each other."""
