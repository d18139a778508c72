"""What users would pick instead, side by side, and published experiments; nothing but `medjax.bin` imports it."""
