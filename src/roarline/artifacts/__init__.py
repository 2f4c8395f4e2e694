"""Store, manifest, HDF5 and table formats: the only code that knows artifact files. Imports no torch."""
