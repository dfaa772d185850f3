"""What `bench-image` consists of: material, daemons, contestants, baselines, report."""
