"""The format of a store: schema, arrays, shards, records.

`voxelize` writes stores, `sequences` reads them.
"""
