"""Programs on encrypted data. A program passes these rooms in order; each imports only from those before it:

`core` (circuits, layouts, the slot simulator), `lowering` (an IR program becomes steps on encrypted values), `steps`,
`linear`, `products` (the ways to compute a step), `chain` (rings, primes, scales, ranges, noise), `planning` (prices,
search, plans), `execution` (SEAL, keys, files). `calibration` measures what `planning.cost` needs; `drawing` shows a
circuit.
"""
