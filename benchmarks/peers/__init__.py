"""Public pipelines in their published shape, for measurements: `python -m benchmarks.peers CLIP...`.

Each is written by us from its description, not from its code, and runs as a whole process. Where the weights of the
original cannot be had, the network has random ones: that changes the scores, not the time.
"""
