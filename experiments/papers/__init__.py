"""One row of PAPERS.md, or a scaled and a full one: one file, which binds `ROWS`."""
