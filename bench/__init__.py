"""Benchmarks: ratios measured side by side in one run. Nothing passes or fails by them."""
