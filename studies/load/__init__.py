"""A load benchmark: what is asked and when (`workload`, `trace`), of whom (`targets`), what came of it (`record`, `figures`),
and configurations side by side in one interleaved run (`comparison`). The base install is enough to put load on a server.
"""
