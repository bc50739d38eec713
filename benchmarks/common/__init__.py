"""What the benchmarks share: photos, coarse masks, other methods, tables and plots."""
