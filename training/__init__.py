"""Training of what the package ships: kept beside the package, never imported by it."""
