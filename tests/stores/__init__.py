"""The ledger, the event log and the object store on a real Valkey and a real S3 server."""
