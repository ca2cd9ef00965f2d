//! Starts the real counterparts for tests: Kubernetes, PostgreSQL, sushy-emulator.
