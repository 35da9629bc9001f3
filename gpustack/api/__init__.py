"""HTTP in, inference aside: resources, logins, watch streams, probes and the documents of all that."""
