"""The library that the workflow's scripts share: causal tracing of BLIP."""
