"""The benchmarks, a file each; `studies.evaluation.catalogue` lists them."""
